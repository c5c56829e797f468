#include "model/session.h"

#include <algorithm>
#include <utility>

namespace fretsaw {

Session::Session(Model* model, KvCache cache)
    : model_(model), cache_(std::move(cache)), sequence_(&cache_) {
  model_->stepper().Prepare(cache_);
}

Result<std::unique_ptr<Session>> Session::Create(Model* model, int64_t tokens) {
  const int64_t context = model->manifest().model.context;
  if (tokens < 0 || tokens > context) {
    return Error{Status::kUsage, "a context of " + std::to_string(tokens) +
                                     " tokens is not between 1 and the model's " +
                                     std::to_string(context)};
  }
  auto cache = KvCache::Create(model->manifest().kv, tokens == 0 ? context : tokens);
  if (!cache) return cache.error();
  return std::unique_ptr<Session>(new Session(model, std::move(cache).value()));
}

VoidResult Session::Append(std::span<const int32_t> tokens, LogitRows rows,
                           const OnLogits& on_logits, const std::atomic<bool>* cancel) {
  if (tokens.empty()) return Error{Status::kBadInput, "no tokens to append"};
  if (std::ssize(tokens) > room()) {
    return Error{Status::kPromptTooLong, std::to_string(length() + std::ssize(tokens)) +
                                             " tokens do not fit a context of " +
                                             std::to_string(cache_.tokens())};
  }
  const int64_t chunk = model_->stepper().chunk_tokens();
  const ChunkRule rule = model_->stepper().chunk_rule();
  if (rule.whole && std::ssize(tokens) > chunk) {
    return NotOneStep(std::ssize(tokens), chunk, chunk);
  }
  for (size_t at = 0, count = 0; at < tokens.size(); at += count) {
    if (cancel != nullptr && cancel->load()) return Error{Status::kCancelled, "cancelled"};
    const auto remaining = static_cast<int64_t>(tokens.size() - at);
    const int64_t most = std::min(chunk, sequence_.step_room());
    count = static_cast<size_t>(NextChunk(rule, length(), remaining, most));
    const bool last = at + count == tokens.size();
    const LogitRows wanted = rows == LogitRows::kLast && !last ? LogitRows::kNone : rows;
    const BatchEntry entry{&sequence_, tokens.subspan(at, count), wanted};
    auto logits = model_->stepper().Step(cache_, {&entry, 1});
    if (!logits) return logits.error();
    if (wanted == LogitRows::kNone) continue;
    on_logits(logits.value(),
              static_cast<int64_t>(wanted == LogitRows::kAll ? at : at + count - 1));
  }
  return Ok{};
}

Result<std::span<const float>> Session::AppendLast(std::span<const int32_t> tokens,
                                                   const std::atomic<bool>* cancel) {
  std::span<const float> last;
  // One captured reference: small enough for std::function not to allocate.
  auto done = Append(
      tokens, LogitRows::kLast, [&last](std::span<const float> logits, int64_t) { last = logits; },
      cancel);
  if (!done) return done.error();
  return last;
}

}  // namespace fretsaw
