// One sequence of a model with its own KV cache: prefill in chunks, then a token at a time.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <span>

#include "base/result.h"
#include "model/kv_cache.h"
#include "model/model.h"

namespace fretsaw {

class Session {
 public:
  // Room for `tokens` tokens; 0: the model's context. The model must outlive the session.
  // Errors: kUsage (over the model's context), kOutOfMemory.
  static Result<std::unique_ptr<Session>> Create(Model* model, int64_t tokens);

  // Called with the logits of a chunk: [rows, V], and the position in `tokens` of the first row.
  using OnLogits = std::function<void(std::span<const float> logits, int64_t first_row)>;

  // Appends any number of tokens, in chunks; the logits that are wanted are passed on chunk by
  // chunk. Stops with kCancelled between chunks when `cancel` is set.
  VoidResult Append(std::span<const int32_t> tokens, LogitRows rows, const OnLogits& on_logits,
                    const std::atomic<bool>* cancel = nullptr);

  // Appends tokens and returns the logits of the last one, [V], valid until the next call.
  Result<std::span<const float>> AppendLast(std::span<const int32_t> tokens,
                                            const std::atomic<bool>* cancel = nullptr);

  void Reset() { sequence_.Reset(); }
  int64_t length() const { return sequence_.num_computed_tokens(); }
  int64_t room() const { return sequence_.room(); }
  uint64_t kv_bytes() const { return cache_.bytes(); }
  Model& model() { return *model_; }

 private:
  Session(Model* model, KvCache cache);

  Model* model_;
  KvCache cache_;
  Sequence sequence_;
};

}  // namespace fretsaw
