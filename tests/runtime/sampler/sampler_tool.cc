// Reads one JSON object a line: {"logits": [...], "seen": [...], "temperature": ..., ...}; writes
// the distribution that the sampler would draw from: {"tokens": [...], "probabilities": [...]}.
#include <iostream>
#include <nlohmann/json.hpp>
#include <string>

#include "sampler/sampler.h"

int main() {
  std::string line;
  while (std::getline(std::cin, line)) {
    const auto in = nlohmann::json::parse(line);
    const auto logits = in["logits"].get<std::vector<float>>();
    auto sampler = fretsaw::Sampler::Create(
        {in["temperature"], in["top_k"], in["top_p"], in["min_p"], in["repetition_penalty"], 0},
        static_cast<int64_t>(logits.size()));
    if (!sampler) {
      std::cout << nlohmann::json{{"error", sampler.error().message}} << "\n";
      continue;
    }
    for (const int32_t token : in["seen"]) sampler.value().Saw(token);
    auto distribution = sampler.value().Distribution(logits);
    nlohmann::json out = {{"tokens", nlohmann::json::array()},
                          {"probabilities", nlohmann::json::array()}};
    for (const auto& candidate : distribution.value()) {
      out["tokens"].push_back(candidate.token);
      out["probabilities"].push_back(candidate.probability);
    }
    std::cout << out << "\n";
  }
}
