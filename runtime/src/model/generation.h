// What happens to a sequence's tokens after the logits: pick, turn into text, decide when it is
// over. The same for one sequence and for many, so both give the same tokens and text.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "model/stop_matcher.h"
#include "model/text_codec.h"
#include "sampler/options.h"
#include "sampler/sampler.h"

namespace fretsaw {

struct GenerateRequest {
  std::vector<int32_t> prompt;
  int64_t max_new_tokens = 128;
  SamplingOptions sampling;
  std::vector<std::string> stop;  // needs a tokenizer
  bool ignore_eos = false;
};

enum class FinishReason : uint8_t { kStop, kLength, kStopString, kCancelled, kDeadline };

// "stop", "length", "stop_string", "cancelled", "deadline".
const char* FinishReasonName(FinishReason reason);

// Called for every token with the text that became certain (possibly none); false stops. Text that
// was held back for a stop string and proved innocent at the end comes last, with token -1.
using OnToken = std::function<bool(int32_t token, std::string_view text)>;

// What generation needs to know of a model. Everything is borrowed.
struct GenerationRules {
  int64_t vocab_size = 0;
  std::span<const int32_t> eos;
  const TextCodec* codec = nullptr;  // nullptr: ids only
};

// One request on its way. Not thread-safe.
class Generation {
 public:
  // `room` is how many tokens the sequence can hold. The request is copied from; what `rules`
  // borrows must outlive the generation.
  // Errors: kBadInput (empty prompt, id outside the vocabulary), kUsage (options), kUnsupported
  // (stop strings without a tokenizer), kPromptTooLong.
  static Result<Generation> Create(const GenerateRequest& request, const GenerationRules& rules,
                                   int64_t room);

  // Picks the next token from logits [V] and handles it; `room` is how many more tokens the
  // sequence can hold. The token to append, or -1 when generation is over.
  Result<int32_t> Next(std::span<const float> logits, int64_t room, const OnToken& on_token,
                       bool cancelled);
  // Ends it: flushes text that was held back. `finish` counts unless the text says otherwise.
  VoidResult End(FinishReason finish, const OnToken& on_token);

  const std::vector<int32_t>& tokens() const { return tokens_; }
  const std::string& text() const { return text_; }
  FinishReason finish() const { return finish_; }

 private:
  Generation(const GenerateRequest& request, const GenerationRules& rules, Sampler sampler);
  Result<std::string> Push(int32_t token);
  VoidResult Flush(const OnToken& on_token);

  std::span<const int32_t> eos_;
  bool ignore_eos_;
  int64_t max_new_tokens_;
  Sampler sampler_;
  std::unique_ptr<TextStream> stream_;
  StopMatcher matcher_;
  std::vector<int32_t> tokens_;
  std::string text_;
  FinishReason finish_ = FinishReason::kLength;
};

}  // namespace fretsaw
