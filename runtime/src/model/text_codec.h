// Text in and out of an artifact: its tokenizer and chat template, both optional.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "artifact/artifact.h"
#include "base/result.h"

namespace fretsaw {

struct ChatTurn {
  std::string role, content;
};

// Turns token ids into text as they come; never returns half a code point.
class TextStream {
 public:
  virtual ~TextStream() = default;
  virtual Result<std::string> Push(int32_t token) = 0;
  virtual Result<std::string> Flush() = 0;
};

// Immutable after Load; const members may be called from several threads.
class TextCodec {
 public:
  // An artifact without a tokenizer gives a codec that refuses text (available() is false).
  // Errors: kCorrupt, kUnsupported (a tokenizer feature, by name).
  static Result<TextCodec> Load(const Artifact& artifact);

  TextCodec(TextCodec&&) noexcept;
  ~TextCodec();

  bool available() const;
  bool has_chat_template() const;
  // Errors: kBadInput (invalid UTF-8), kUnsupported (no tokenizer).
  Result<std::vector<int32_t>> Encode(std::string_view text, bool add_special_tokens) const;
  Result<std::string> Decode(std::span<const int32_t> ids, bool skip_special_tokens) const;
  // The prompt for a conversation, ready for Encode without special tokens.
  Result<std::string> ApplyChat(const std::vector<ChatTurn>& turns) const;
  // A decoder for generated text: special tokens are left out. Must not outlive the codec.
  std::unique_ptr<TextStream> Stream() const;

 private:
  struct State;
  explicit TextCodec(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace fretsaw
