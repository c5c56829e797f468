// Generates text or ids from a prompt: prefill, sample, decode, stop.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "base/result.h"
#include "model/generation.h"
#include "model/session.h"
#include "model/text_codec.h"

namespace fretsaw {

struct GenerateResult {
  std::vector<int32_t> tokens;  // with the end-of-sequence token when it was generated
  std::string text;             // empty without a tokenizer
  FinishReason finish = FinishReason::kLength;
  double prefill_ms = 0;     // prompt to first logits
  double decode_ms = 0;      // all steps after that, with sampling and decoding of text
  int64_t decode_steps = 0;  // tokens that decode_ms stands for
};

// Runs a step of a model that others use too, when it is its turn.
using RunStep = std::function<VoidResult(const std::function<VoidResult()>& step)>;

// Appends to the session; `on_token` is called between the steps, outside of `run_step`. Generation
// ends at an end-of-sequence id of the manifest, a stop string, max_new_tokens, or when the session
// is full (both "length"), or when on_token returns false or `cancel` is set ("cancelled"). Errors:
// kBadInput (empty prompt), kPromptTooLong, kUsage (options), kInternal.
Result<GenerateResult> Generate(Session* session, const TextCodec& codec,
                                const GenerateRequest& request, const OnToken& on_token,
                                const std::atomic<bool>* cancel = nullptr,
                                const RunStep& run_step = {});

}  // namespace fretsaw
