// tokenizer.json as parts: the two big lists straight into flat vectors, everything else as a small
// DOM.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

namespace fretsaw {

struct TokenizerLimits {
  size_t max_bytes = 256u << 20;       // of the JSON text
  size_t max_depth = 64;               // nested arrays and objects
  size_t max_vocab = 4u << 20;         // entries
  size_t max_merges = 8u << 20;        // entries
  size_t max_token_bytes = 1u << 16;   // of one vocabulary entry
  size_t max_other_values = 1u << 21;  // JSON values outside vocab and merges
};

struct TokenizerSource {
  nlohmann::json root;  // without model.vocab and model.merges
  bool has_vocab = false;
  bool has_merges = false;
  std::vector<std::pair<std::string, int64_t>> vocab;
  std::vector<std::pair<std::string, std::string>> merges;
};

Result<TokenizerSource> ReadTokenizerJson(std::string_view json, const TokenizerLimits& limits);

}  // namespace fretsaw
