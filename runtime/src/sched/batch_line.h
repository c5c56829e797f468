// One line of a batch: {"prompt": "..."}, {"ids": [...]} or {"messages": [...]}, with what it
// changes of the defaults.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "base/result.h"
#include "model/generation.h"
#include "model/text_codec.h"
#include "sched/line_reader.h"

namespace fretsaw {

inline constexpr size_t kMaxBatchLineBytes = size_t{16} << 20;

struct BatchDefaults {
  GenerateRequest request;            // its prompt is not used
  bool chat = false;                  // put prompts into the chat template
  std::optional<std::string> system;  // with chat
};

struct BatchLine {
  nlohmann::json id;  // a string, a number, or null
  std::optional<Error> error;
  GenerateRequest request;
  std::optional<double> timeout_ms;
};

// Errors are the line's own, its id is kept when it can be read: kBadInput (not JSON, not UTF-8, no
// or several prompts, a wrong or unknown key), kUsage (sampling), kUnsupported (no tokenizer).
BatchLine ParseBatchLine(const Line& line, const BatchDefaults& defaults, const TextCodec& codec);

}  // namespace fretsaw
