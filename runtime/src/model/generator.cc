#include "model/generator.h"

#include <chrono>
#include <utility>

namespace fretsaw {
namespace {

using Clock = std::chrono::steady_clock;

double MsSince(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

}  // namespace

Result<GenerateResult> Generate(Session* session, const TextCodec& codec,
                                const GenerateRequest& request, const OnToken& on_token,
                                const std::atomic<bool>* cancel) {
  const Manifest& manifest = session->model().manifest();
  auto created = Generation::Create(
      request, {manifest.model.vocab_size, manifest.generation.eos_token_ids, &codec},
      session->room());
  if (!created) return created.error();
  Generation& generation = created.value();
  GenerateResult result;
  const auto prefill_start = Clock::now();
  auto logits = session->AppendLast(request.prompt, cancel);
  result.prefill_ms = MsSince(prefill_start);
  if (!logits) return logits.error();
  const auto decode_start = Clock::now();
  for (;;) {
    auto token = generation.Next(logits.value(), session->room(), on_token,
                                 cancel != nullptr && cancel->load());
    if (!token) return token.error();
    if (token.value() < 0) break;
    const int32_t next[] = {token.value()};
    logits = session->AppendLast(next);
    if (!logits) return logits.error();
    ++result.decode_steps;
    result.decode_ms = MsSince(decode_start);
  }
  result.tokens = generation.tokens();
  result.text = generation.text();
  result.finish = generation.finish();
  return result;
}

}  // namespace fretsaw
