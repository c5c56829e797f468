#include <algorithm>
#include <cstdio>
#include <vector>

#include "cli/commands.h"
#include "sampler/prng.h"

namespace fretsaw::cli {
namespace {

struct Run {
  double prefill_ms = 0, decode_ms = 0;
};

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

// Prefills, then appends the most likely token over and over, end-of-sequence or not.
Result<Run> Measure(Session* session, const std::vector<int32_t>& prompt, int64_t decode) {
  session->Reset();
  Run run;
  const auto prefill_start = Clock::now();
  auto logits = session->AppendLast(prompt, &Interrupted());
  if (!logits) return logits.error();
  run.prefill_ms = MsSince(prefill_start);
  const auto decode_start = Clock::now();
  for (int64_t i = 0; i < decode; ++i) {
    if (Interrupted().load()) return Error{Status::kCancelled, "cancelled"};
    const auto best = std::max_element(logits.value().begin(), logits.value().end());
    const int32_t next[] = {static_cast<int32_t>(best - logits.value().begin())};
    logits = session->AppendLast(next);
    if (!logits) return logits.error();
  }
  run.decode_ms = MsSince(decode_start);
  return run;
}

std::vector<int32_t> RandomPrompt(int64_t tokens, int64_t vocab_size) {
  SplitMix64 random(0);
  std::vector<int32_t> prompt(static_cast<size_t>(tokens));
  for (int32_t& token : prompt) {
    token = static_cast<int32_t>(random.Next() % static_cast<uint64_t>(vocab_size));
  }
  return prompt;
}

}  // namespace

Result<int> RunBench(const Options& options, Artifact artifact, Clock::time_point start) {
  auto loaded =
      Model::Load(std::move(artifact), {options.threads.value_or(0), options.cpu, options.verify});
  if (!loaded) return loaded.error();
  Model& model = *loaded.value();
  const int64_t tokens = options.prefill + options.decode;
  auto session = Session::Create(&model, options.context.value_or(tokens));
  if (!session) return session.error();
  const double load_ms = MsSince(start);
  const auto prompt = RandomPrompt(options.prefill, model.manifest().model.vocab_size);

  std::vector<double> prefill, decode;
  for (int64_t i = 0; i <= options.repeat; ++i) {  // the first run warms up and is not counted
    auto run = Measure(session.value().get(), prompt, options.decode);
    if (!run && run.error().status == Status::kCancelled) return kInterruptedExit;
    if (!run) return run.error();
    if (i == 0) continue;
    prefill.push_back(run.value().prefill_ms);
    decode.push_back(run.value().decode_ms);
  }
  const double prefill_ms = Median(prefill), decode_ms = Median(decode);
  if (!options.json) {
    std::printf(
        "prefill %lld tokens: %.1f ms, %.1f tok/s\ndecode %lld tokens: %.1f ms, %.1f tok/s\n"
        "(medians of %lld; %s, %d threads; load %.1f ms)\n",
        static_cast<long long>(options.prefill), prefill_ms, Rate(options.prefill, prefill_ms),
        static_cast<long long>(options.decode), decode_ms, Rate(options.decode, decode_ms),
        static_cast<long long>(options.repeat), model.variant().c_str(), model.threads(), load_ms);
    return 0;
  }
  auto printed = PrintJson({{"prompt_tokens", options.prefill},
                            {"decode_tokens", options.decode},
                            {"repeat", options.repeat},
                            {"variant", model.variant()},
                            {"threads", model.threads()},
                            {"timing",
                             {{"load_ms", load_ms},
                              {"prefill_ms", prefill_ms},
                              {"prefill_tok_s", Rate(options.prefill, prefill_ms)},
                              {"decode_tok_s", Rate(options.decode, decode_ms)}}},
                            {"runs", {{"prefill_ms", prefill}, {"decode_ms", decode}}},
                            {"memory", MemoryJson(*session.value(), model.manifest())}});
  if (!printed) return printed.error();
  return 0;
}

}  // namespace fretsaw::cli
