// Continuous batching: many requests share every step of the program. A step takes one token of
// each sequence that is decoding and fills the rest of its budget with pieces of prompts.
//
// Admission. A request is admitted, in order of arrival, when the pages that it may still come to
// need (prompt and max_new_tokens, less what it shares) fit beside what the admitted ones hold and
// may still need. So every admitted request can go on to its end without waiting for pages: none is
// ever put back, and there is nothing to deadlock on. A request that no empty cache could hold is
// refused at once.
//
// A request's tokens do not depend on what else is in the batch: steps compute every row the same
// way whatever the batch, and each request has its own sampler. Where a program asks for it,
// prompts are cut at multiples of a block only, or not at all (model/chunks.h).
#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <vector>

#include "model/generation.h"
#include "model/stepper.h"
#include "sched/prefix_index.h"

namespace fretsaw {

struct SchedulerOptions {
  int64_t max_batch_tokens = 2048;  // of one step; the program's chunk size bounds it too
  int64_t max_sequences = 64;       // admitted at once
  int64_t max_queue = 256;          // submitted and not yet admitted
  int64_t context = 0;              // tokens of one sequence
  uint64_t kv_bytes = 0;            // of all KV pages; 0: enough for max_sequences full contexts
  bool share_prefixes = true;
  // What time it is, called from any thread; empty: the steady clock.
  std::function<std::chrono::steady_clock::time_point()> clock;
};

// A request that has ended, however it did.
struct Finished {
  int64_t id = 0;
  std::optional<Error> error;  // the rest is empty but for the times
  int64_t prompt_tokens = 0;
  std::vector<int32_t> tokens;
  std::string text;
  FinishReason finish = FinishReason::kLength;
  double queue_ms = 0;  // from Submit to admission; to the end if it was never admitted
  double ttft_ms = 0;   // from Submit to the first token; 0 without one
  double total_ms = 0;  // from Submit to the end
};

struct ScheduledRequest {
  GenerateRequest generate;
  std::optional<std::chrono::steady_clock::time_point> deadline;
  // Called by Step, on its thread; they may call Submit and Cancel and must not throw. A client
  // that cannot keep up returns false from on_token, which cancels.
  OnToken on_token;                           // may be empty
  std::function<void(Finished&&)> on_finish;  // exactly once for every request that was accepted
};

struct SchedulerStats {
  int64_t waiting = 0, running = 0;
  int64_t steps = 0;
  int64_t prompt_tokens = 0;  // computed
  int64_t shared_tokens = 0;  // of prompts, found in the cache
  int64_t new_tokens = 0;
  int64_t used_pages = 0, peak_used_pages = 0, pages = 0;
};

// Submit and Cancel may be called from any thread; the rest belongs to one thread, which should be
// the same for all steps of a model (kernels keep scratch memory by thread).
class Scheduler {
 public:
  // `stepper` and what `rules` borrows must outlive the scheduler. Prepares the stepper for its own
  // cache. Errors: kUsage (options; a step too small for the program's chunk rule), kOutOfMemory.
  static Result<std::unique_ptr<Scheduler>> Create(Stepper* stepper, const KvInfo& kv,
                                                   const GenerationRules& rules,
                                                   const SchedulerOptions& options);
  // Requests that have not ended are forgotten without on_finish.
  ~Scheduler();

  // Queues a request; returns its id. Errors: those of Generation::Create, kPromptTooLong also
  // where a prompt may not be cut and does not fit a step, kOutOfMemory (it could never be
  // admitted), kBusy (the queue is full).
  Result<int64_t> Submit(ScheduledRequest request);
  // Ends a request with what it has so far ("cancelled") at the next Step, queued or running.
  // Unknown ids and requests that have ended are ignored.
  void Cancel(int64_t id);

  // Runs one step; false when there was nothing to do. Errors: those of the program; the requests
  // in that step have ended with the error, the others can go on.
  Result<bool> Step();

  SchedulerStats stats() const;
  const KvCache& cache() const { return cache_; }

 private:
  struct Request;
  using Requests = std::vector<std::unique_ptr<Request>>;

  Scheduler(Stepper* stepper, const GenerationRules& rules, const SchedulerOptions& options,
            KvCache cache);
  std::chrono::steady_clock::time_point Now() const;
  void Intake();
  void EndOverdue();
  void Admit();
  bool TryAdmit(Request* request);
  bool FollowsAnother(const Request& request) const;
  int64_t KeptForPrompts() const;
  void PlanDecodes();
  void PlanPrefills();
  Result<bool> RunBatch();
  void TakeLogits(Request* request, std::span<const float> logits);
  void End(Request* request, FinishReason finish);
  void Deliver(Request* request, std::optional<Error> error);
  void DropEnded();

  Stepper* stepper_;
  GenerationRules rules_;
  SchedulerOptions options_;
  ChunkRule rule_;
  int64_t budget_;  // tokens of one step
  KvCache cache_;
  PrefixIndex prefixes_;
  std::deque<std::unique_ptr<Request>> waiting_;
  Requests running_;             // in order of admission
  std::vector<Request*> batch_;  // of the current step
  std::vector<BatchEntry> entries_;
  SchedulerStats stats_;

  std::mutex mutex_;  // guards what follows
  Requests inbox_;
  std::vector<int64_t> cancelled_;
  int64_t queued_ = 0;  // in inbox_ and waiting_
  int64_t next_id_ = 1;
};

}  // namespace fretsaw
