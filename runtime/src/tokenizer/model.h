// Models: one pre-token to ids.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "tokenizer/config.h"
#include "tokenizer/json_source.h"
#include "tokenizer/vocab.h"

namespace fretsaw {

class TokenModel {
 public:
  virtual ~TokenModel() = default;
  // Appends the ids of one piece of valid UTF-8. Thread-safe.
  virtual VoidResult Tokenize(std::string_view text, std::vector<int32_t>& ids) const = 0;
  const Vocab& vocab() const { return vocab_; }

 protected:
  explicit TokenModel(Vocab vocab) : vocab_(std::move(vocab)) {}
  Vocab vocab_;
};

// Each throws ConfigFailure.
std::unique_ptr<TokenModel> MakeModel(const Config& config, const TokenizerSource& source);
std::unique_ptr<TokenModel> MakeBpe(const Config& config, const TokenizerSource& source,
                                    Vocab vocab);
std::unique_ptr<TokenModel> MakeWordPiece(const Config& config, Vocab vocab);
std::unique_ptr<TokenModel> MakeWordLevel(const Config& config, Vocab vocab);

}  // namespace fretsaw
