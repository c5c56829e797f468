// The stages behind decoder.h.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <string_view>

#include "tokenizer/decoder.h"
#include "tokenizer/utf8.h"

namespace fretsaw {

// Gathers a token, then hands it to Token().
class WholeTokenStage : public DecodeStage {
 public:
  void Chunk(std::string_view text) final { token_ += text; }
  void EndToken() final {
    std::string token;
    token.swap(token_);
    Token(std::move(token));
  }

 protected:
  virtual void Token(std::string token) = 0;

 private:
  std::string token_;
};

// Token by token through a function of (index, text).
class MapStage : public WholeTokenStage {
 public:
  using Function = std::function<std::string(size_t, std::string)>;
  explicit MapStage(Function function) : function_(std::move(function)) {}

 protected:
  void Token(std::string token) override { Emit(function_(index_++, std::move(token))); }

 private:
  Function function_;
  size_t index_ = 0;
};

// All tokens become one.
class FuseStage : public DecodeStage {
 public:
  void Chunk(std::string_view text) override { next_->Chunk(text); }
  void EndToken() override {}
  void Finish() override {
    next_->EndToken();
    next_->Finish();
  }
};

// GPT-2's byte alphabet back to bytes; all tokens become one.
class ByteLevelStage : public WholeTokenStage {
 public:
  void Finish() override;

 protected:
  void Token(std::string token) override;

 private:
  utf8::LossyDecoder lossy_;
};

// Runs of <0xNN> tokens to text. A run is all or nothing, so it is certain only when it ends.
class ByteFallbackStage : public WholeTokenStage {
 public:
  void Finish() override;

 protected:
  void Token(std::string token) override;

 private:
  void FlushRun();
  std::string run_;
};

// Cuts up to `start` leading and `stop` trailing copies of a character from each token.
class StripStage : public DecodeStage {
 public:
  StripStage(std::string content, size_t start, size_t stop)
      : content_(std::move(content)), start_(start), stop_(stop), leading_(start) {}
  void Chunk(std::string_view text) override;
  void EndToken() override;

 private:
  std::string content_;  // one character
  size_t start_, stop_;
  size_t leading_;       // leading copies that may still be cut from this token
  std::string pending_;  // an unfinished character, or copies that may turn out to be trailing
};

// CLIP-style BPE: the suffix marks a word's end and becomes a space, except in the last token.
class BpeSuffixStage : public WholeTokenStage {
 public:
  explicit BpeSuffixStage(std::string suffix) : suffix_(std::move(suffix)) {}
  void Finish() override;

 protected:
  void Token(std::string token) override;

 private:
  std::string suffix_;
  std::string last_;
  bool has_last_ = false;
};

// Replaces every occurrence, left to right, without looking at the result again.
std::string ReplaceAll(std::string_view text, std::string_view from, std::string_view to);

}  // namespace fretsaw
