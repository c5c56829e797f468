// The tokenizer of a Hugging Face tokenizer.json: the same ids and the same text as that library.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "tokenizer/decoder.h"

namespace fretsaw {

struct TokenizerLimits;

// Immutable after Load and safe to use from several threads. Copies share their tables.
class Tokenizer {
 public:
  // Reads tokenizer.json. `truncation` and `padding` in it are ignored, as transformers does.
  // Errors: kCorrupt (not JSON, wrong type, inconsistent ids), kUnsupported (a component or option
  // that this runtime lacks), both with the JSON path; bounded against hostile sizes and depth.
  static Result<Tokenizer> Load(std::string_view json);
  static Result<Tokenizer> Load(std::string_view json, const TokenizerLimits& limits);

  // Ids of a text. Special tokens written out in the text become their ids; `add_special_tokens`
  // also adds those of the post-processor. Errors: kBadInput with the offset of the first invalid
  // byte.
  Result<std::vector<int32_t>> Encode(std::string_view utf8, bool add_special_tokens) const;

  // Text of ids. Ids without a token give nothing. Errors: kBadInput for a negative id.
  Result<std::string> Decode(std::span<const int32_t> ids, bool skip_special_tokens) const;

  // Entries of the vocabulary and the added tokens together.
  size_t vocab_size() const;
  int32_t largest_id() const;
  std::optional<int32_t> TokenToId(std::string_view token) const;
  // The token as the vocabulary writes it, e.g. "Ġthe"; nullopt for an id without one.
  std::optional<std::string> IdToToken(int32_t id) const;
  // An added token that is marked special.
  bool IsSpecial(int32_t id) const;

 private:
  friend class StreamDecoder;
  struct Parts;
  explicit Tokenizer(std::shared_ptr<const Parts> parts) : parts_(std::move(parts)) {}
  // What the decoder sees of an id; nullopt when it contributes nothing.
  std::optional<std::string_view> DecoderToken(int32_t id, bool skip_special_tokens) const;

  std::shared_ptr<const Parts> parts_;
};

// Decodes token by token. The concatenation of all results of Push and of Flush is exactly
// Decode(all ids); no result ends inside a character. Not thread-safe; keeps its tokenizer alive.
class StreamDecoder {
 public:
  StreamDecoder(Tokenizer tokenizer, bool skip_special_tokens);

  // Adds one id; the text that is now certain (possibly empty). A negative id is an error.
  Result<std::string> Push(int32_t id);
  // The rest, and the end: only a new decoder can decode more.
  std::string Flush();

 private:
  Tokenizer tokenizer_;
  bool skip_special_tokens_;
  DecodeStream stream_;
};

// The list of implemented components as JSON, for the compile-time check to be compared with.
std::string SupportedTokenizerFeatures();

}  // namespace fretsaw
