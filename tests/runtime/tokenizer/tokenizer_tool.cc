// Drives the tokenizer and the chat templates from tests: JSON lines in, JSON lines out.
//
//   {"op":"load","path":P} | {"op":"load","json":S}        -> {"vocab_size":N,"ms":T}
//   {"op":"encode","text":S,"special":B}                   -> {"ids":[...]}     ("hex" instead of
//   "text": raw bytes)
//   {"op":"encode_file","path":P,"special":B}              -> {"ids":[...],"ms":T}
//   {"op":"decode","ids":[...],"skip":B}                   -> {"text":S}
//   {"op":"stream","ids":[...],"skip":B}                   -> {"chunks":[...]}
//   {"op":"features"}                                      -> the list of supported components
//   {"op":"chat","template":S,"messages":[...],...}        -> {"text":S}
// An error is {"error":MESSAGE,"status":NAME}.
#include <chrono>
#include <fstream>
#include <iostream>
#include <iterator>
#include <nlohmann/json.hpp>
#include <optional>

#include "chat/chat_template.h"
#include "tokenizer/tokenizer.h"

namespace {

using fretsaw::Tokenizer;
using json = nlohmann::ordered_json;  // templates see keys in the order given

std::string ReadFile(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

json ErrorLine(const fretsaw::Error& error) {
  return {{"error", error.message}, {"status", fretsaw::StatusName(error.status)}};
}

double MsSince(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start)
      .count();
}

std::string TextOf(const json& request) {
  if (!request.contains("hex")) return request.at("text").get<std::string>();
  const auto hex = request.at("hex").get<std::string>();
  std::string bytes;
  for (size_t i = 0; i + 1 < hex.size(); i += 2) {
    bytes.push_back(static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16)));
  }
  return bytes;
}

class Session {
 public:
  json Handle(const json& request) {
    const auto op = request.at("op").get<std::string>();
    if (op == "load") return Load(request);
    if (op == "features") {
      json out = json::parse(fretsaw::SupportedTokenizerFeatures());
      out["chat"] = json::parse(fretsaw::SupportedChatFeatures());
      return out;
    }
    if (op == "chat") return Chat(request);
    if (!tokenizer_) return {{"error", "load a tokenizer first"}};
    if (op == "encode") return Encode(TextOf(request), request);
    if (op == "encode_file") return Encode(ReadFile(request.at("path")), request);
    const auto ids = request.at("ids").get<std::vector<int32_t>>();
    const bool skip = request.value("skip", false);
    return op == "decode" ? Decode(ids, skip) : Stream(ids, skip);
  }

 private:
  json Load(const json& request) {
    const std::string text = request.contains("json") ? request.at("json").get<std::string>()
                                                      : ReadFile(request.at("path"));
    const auto start = std::chrono::steady_clock::now();
    auto loaded = Tokenizer::Load(text);
    const double ms = MsSince(start);
    if (!loaded) return ErrorLine(loaded.error());
    tokenizer_ = std::move(loaded).value();
    return {{"vocab_size", tokenizer_->vocab_size()}, {"ms", ms}};
  }

  json Encode(const std::string& text, const json& request) {
    const auto start = std::chrono::steady_clock::now();
    auto ids = tokenizer_->Encode(text, request.value("special", false));
    const double ms = MsSince(start);
    if (!ids) return ErrorLine(ids.error());
    return {{"ids", ids.value()}, {"ms", ms}};
  }

  json Decode(const std::vector<int32_t>& ids, bool skip) {
    auto text = tokenizer_->Decode(ids, skip);
    if (!text) return ErrorLine(text.error());
    return {{"text", text.value()}};
  }

  json Stream(const std::vector<int32_t>& ids, bool skip) {
    fretsaw::StreamDecoder decoder(*tokenizer_, skip);
    json chunks = json::array();
    for (const int32_t id : ids) {
      auto chunk = decoder.Push(id);
      if (!chunk) return ErrorLine(chunk.error());
      chunks.push_back(chunk.value());
    }
    chunks.push_back(decoder.Flush());
    return {{"chunks", chunks}};
  }

  json Chat(const json& request) {
    auto parsed = fretsaw::ChatTemplate::Parse(request.at("template").get<std::string>());
    if (!parsed) return ErrorLine(parsed.error());
    fretsaw::ChatInput input;
    input.context_json = request.at("context").dump();
    input.now = request.value("now", int64_t{0});
    auto text = parsed.value().Render(input);
    if (!text) return ErrorLine(text.error());
    return {{"text", text.value()}};
  }

  std::optional<Tokenizer> tokenizer_;
};

}  // namespace

int main() {
  Session session;
  for (std::string line; std::getline(std::cin, line);) {
    json answer;
    try {
      answer = session.Handle(json::parse(line));
    } catch (const std::exception& e) {
      answer = {{"error", std::string("tool: ") + e.what()}, {"status", "tool"}};
    }
    std::cout << answer.dump() << '\n' << std::flush;
  }
}
