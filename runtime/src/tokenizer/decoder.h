// Decoders as streams: token texts go in one by one and text comes out as soon as it cannot change
// any more. A whole decode is the same stream run to its end, so the two can never differ.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/config.h"

namespace fretsaw {

// One stage. A token arrives as any number of chunks and then an end; a stage that can decide early
// (Fuse, ByteLevel, Strip) passes chunks on, the others gather their token first.
class DecodeStage {
 public:
  virtual ~DecodeStage() = default;
  virtual void Chunk(std::string_view text) = 0;
  virtual void EndToken() = 0;
  virtual void Finish() { next_->Finish(); }  // no more tokens
  void Connect(DecodeStage* next) { next_ = next; }

 protected:
  void Emit(std::string_view token) {
    next_->Chunk(token);
    next_->EndToken();
  }
  DecodeStage* next_ = nullptr;
};

using StageMaker = std::function<std::unique_ptr<DecodeStage>()>;

// The immutable description of a decoder; makes the stages of a new stream.
class Decoder {
 public:
  Decoder() = default;  // joins tokens with spaces
  // Throws ConfigFailure.
  explicit Decoder(const Config& config);

  const std::vector<StageMaker>& makers() const { return makers_; }
  bool joins_with_spaces() const { return makers_.empty(); }

 private:
  void Add(const Config& config, int depth);
  void AddText(const Config& config, const std::string& type);

  std::vector<StageMaker> makers_;  // a Sequence is flattened
};

// A running stream of one decoder.
class DecodeStream {
 public:
  explicit DecodeStream(const Decoder& decoder);
  ~DecodeStream();
  DecodeStream(DecodeStream&&) noexcept;
  DecodeStream& operator=(DecodeStream&&) noexcept;

  void Push(std::string_view token);
  void Finish();
  // The text that became certain since the last call.
  std::string Take();

 private:
  class Sink;
  std::unique_ptr<Sink> sink_;
  std::vector<std::unique_ptr<DecodeStage>> stages_;
  bool spaces_;
  bool first_ = true;
};

}  // namespace fretsaw
