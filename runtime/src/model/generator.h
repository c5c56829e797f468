// Generates text or ids from a prompt: prefill, sample, decode, stop.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "model/session.h"
#include "model/text_codec.h"
#include "sampler/options.h"

namespace fretsaw {

struct GenerateRequest {
  std::vector<int32_t> prompt;
  int64_t max_new_tokens = 128;
  SamplingOptions sampling;
  std::vector<std::string> stop;  // needs a tokenizer
  bool ignore_eos = false;
};

enum class FinishReason : uint8_t { kStop, kLength, kStopString, kCancelled };

// "stop", "length", "stop_string", "cancelled".
const char* FinishReasonName(FinishReason reason);

struct GenerateResult {
  std::vector<int32_t> tokens;  // with the end-of-sequence token when it was generated
  std::string text;             // empty without a tokenizer
  FinishReason finish = FinishReason::kLength;
  double prefill_ms = 0;     // prompt to first logits
  double decode_ms = 0;      // all steps after that, with sampling and decoding of text
  int64_t decode_steps = 0;  // tokens that decode_ms stands for
};

// Called for every token with the text that became certain (possibly none); false stops. Text that
// was held back for a stop string and proved innocent at the end comes last, with token -1.
using OnToken = std::function<bool(int32_t token, std::string_view text)>;

// Appends to the session. Generation ends at an end-of-sequence id of the manifest, a stop string,
// max_new_tokens, or when the session is full (both "length"), or when on_token returns false or
// `cancel` is set ("cancelled").
// Errors: kBadInput (empty prompt), kPromptTooLong, kUsage (options), kInternal.
Result<GenerateResult> Generate(Session* session, const TextCodec& codec,
                                const GenerateRequest& request, const OnToken& on_token,
                                const std::atomic<bool>* cancel = nullptr);

}  // namespace fretsaw
