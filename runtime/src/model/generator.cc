#include "model/generator.h"

#include <chrono>
#include <utility>

namespace fretsaw {
namespace {

using Clock = std::chrono::steady_clock;

double MsSince(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

// What was said of tokens in a step, for a consumer that is told after it.
class Sayings {
 public:
  explicit Sayings(const OnToken& on_token) : on_token_(on_token) { kept_.reserve(2); }

  void Keep(int32_t token, std::string_view text) { kept_.emplace_back(token, text); }
  // False when the consumer wants no more.
  bool Tell() {
    bool go_on = true;
    for (const auto& [token, text] : kept_)
      go_on &= !on_token_ || on_token_(token, text) || token < 0;
    kept_.clear();
    return go_on;
  }

 private:
  const OnToken& on_token_;
  std::vector<std::pair<int32_t, std::string>> kept_;
};

}  // namespace

Result<GenerateResult> Generate(Session* session, const TextCodec& codec,
                                const GenerateRequest& request, const OnToken& on_token,
                                const std::atomic<bool>* cancel, const RunStep& run_step) {
  const Manifest& manifest = session->model().manifest();
  auto created = Generation::Create(
      request, {manifest.model.vocab_size, manifest.generation.eos_token_ids, &codec},
      session->room());
  if (!created) return created.error();
  Generation& generation = created.value();
  GenerateResult result;
  Sayings sayings(on_token);
  const OnToken keep = [&](int32_t token, std::string_view text) {
    sayings.Keep(token, text);
    return true;
  };
  Clock::time_point start;
  int32_t next[] = {-1};
  std::span<const int32_t> append = request.prompt;
  const std::function<VoidResult()> step = [&]() -> VoidResult {
    const bool prefill = append.data() == request.prompt.data();
    if (prefill) start = Clock::now();
    auto logits = session->AppendLast(append, prefill ? cancel : nullptr);
    if (!logits) return logits.error();
    (prefill ? result.prefill_ms : result.decode_ms) = MsSince(start);
    if (prefill) {
      start = Clock::now();
    } else {
      ++result.decode_steps;
    }
    auto token =
        generation.Next(logits.value(), session->room(), keep, cancel != nullptr && cancel->load());
    if (!token) return token.error();
    next[0] = token.value();
    return Ok{};
  };
  for (bool go_on = true; go_on;) {
    if (auto ok = run_step ? run_step(step) : step(); !ok) return ok.error();
    go_on = sayings.Tell();
    result.finish = generation.finish();
    if (!go_on && next[0] >= 0) {
      if (auto ok = generation.End(FinishReason::kCancelled, on_token); !ok) return ok.error();
      result.finish = generation.finish();
    } else if (!go_on && result.finish == FinishReason::kLength) {
      result.finish = FinishReason::kCancelled;
    }
    if (next[0] < 0) break;
    append = next;
  }
  result.tokens = generation.tokens();
  result.text = generation.text();
  return result;
}

}  // namespace fretsaw
