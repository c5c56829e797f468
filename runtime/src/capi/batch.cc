// Many sequences at once, on the scheduler.
#include <algorithm>
#include <chrono>
#include <deque>

#include "capi/handles.h"
#include "model/model.h"
#include "sched/scheduler.h"

using namespace fretsaw;  // NOLINT(build/namespaces): the whole file is a thin skin over it

struct fsw_batch {
  std::shared_ptr<fsw_batch> self;
  std::shared_ptr<fsw_model> owner;
  std::unique_ptr<Scheduler> scheduler;
  std::deque<Finished> ended;  // guarded by the model's lock, as steps are
};

namespace {

constexpr uint64_t kDefaultKvBytes = uint64_t{1} << 30;
constexpr double kLongestMs = 1e12;

Result<SchedulerOptions> ReadOptions(const fsw_batch_options* options, const Manifest& manifest) {
  fsw_batch_options o{};
  if (options != nullptr) {
    if (options->struct_bytes < sizeof o) {
      return Error{Status::kUsage, "fsw_batch_options.struct_bytes is not set"};
    }
    o = *options;
  }
  SchedulerOptions chosen;
  chosen.context = o.context != 0 ? o.context : manifest.model.context;
  if (chosen.context > manifest.model.context) {
    return Error{Status::kUsage, "a context of " + std::to_string(chosen.context) +
                                     " tokens is not between 1 and the model's " +
                                     std::to_string(manifest.model.context)};
  }
  chosen.max_batch_tokens =
      o.max_batch_tokens != 0 ? o.max_batch_tokens : manifest.program.chunk_tokens;
  if (o.max_sequences != 0) chosen.max_sequences = o.max_sequences;
  if (o.max_queue != 0) chosen.max_queue = o.max_queue;
  const uint64_t one = SequenceBytes(manifest.kv, chosen.context);
  chosen.kv_bytes = o.kv_bytes != 0 ? o.kv_bytes : std::max(kDefaultKvBytes, one);
  return chosen;
}

}  // namespace

fsw_status fsw_batch_create(fsw_model* model, const fsw_batch_options* options, fsw_batch** out) {
  return capi::Guard([&]() -> VoidResult {
    if (model == nullptr) return capi::NullArgument("model");
    if (out == nullptr) return capi::NullArgument("batch");
    *out = nullptr;
    if (auto ok = capi::NeedDecoder(*model); !ok) return ok.error();
    const Manifest& manifest = model->model->manifest();
    auto chosen = ReadOptions(options, manifest);
    if (!chosen) return chosen.error();
    auto scheduler = capi::RunAlone(*model, [&] {
      return Scheduler::Create(
          &model->model->stepper(), manifest.kv,
          {manifest.model.vocab_size, manifest.generation.eos_token_ids, model->codec.get()},
          chosen.value());
    });
    if (!scheduler) return scheduler.error();
    auto handle = std::make_shared<fsw_batch>();
    handle->owner = model->self;
    handle->scheduler = std::move(scheduler).value();
    *out = capi::HandOut(std::move(handle));
    return Ok{};
  });
}

void fsw_batch_close(fsw_batch* batch) { capi::Close(batch); }

fsw_status fsw_batch_submit(fsw_batch* batch, const int32_t* prompt, size_t count,
                            const fsw_generate_options* options, double timeout_ms, int64_t* id) {
  return capi::Guard([&]() -> VoidResult {
    if (batch == nullptr) return capi::NullArgument("batch");
    if (prompt == nullptr && count > 0) return capi::NullArgument("prompt");
    if (id == nullptr) return capi::NullArgument("id");
    auto request = capi::ReadRequest(prompt, count, options);
    if (!request) return request.error();
    ScheduledRequest scheduled;
    scheduled.generate = std::move(request).value();
    if (timeout_ms >= 0) {
      const auto us = static_cast<int64_t>(std::min(timeout_ms, kLongestMs) * 1000);
      scheduled.deadline = std::chrono::steady_clock::now() + std::chrono::microseconds(us);
    }
    scheduled.on_finish = [batch](Finished&& f) { batch->ended.push_back(std::move(f)); };
    if (auto ok = capi::SameProcess(*batch->owner); !ok) return ok.error();
    const auto held = capi::Hold(batch);
    // No lock: a client can submit and cancel while another one steps.
    auto submitted = batch->scheduler->Submit(std::move(scheduled));
    if (!submitted) return submitted.error();
    *id = submitted.value();
    return Ok{};
  });
}

fsw_status fsw_batch_cancel(fsw_batch* batch, int64_t id) {
  return capi::Guard([&]() -> VoidResult {
    if (batch == nullptr) return capi::NullArgument("batch");
    if (auto ok = capi::SameProcess(*batch->owner); !ok) return ok.error();
    batch->scheduler->Cancel(id);
    return Ok{};
  });
}

fsw_status fsw_batch_step(fsw_batch* batch, int32_t* worked) {
  return capi::Guard([&]() -> VoidResult {
    if (batch == nullptr) return capi::NullArgument("batch");
    if (worked == nullptr) return capi::NullArgument("worked");
    const auto held = capi::Hold(batch);
    auto stepped = capi::RunAlone(*batch->owner, [&] { return batch->scheduler->Step(); });
    if (!stepped) return stepped.error();
    *worked = stepped.value() ? 1 : 0;
    return Ok{};
  });
}

fsw_status fsw_batch_next(fsw_batch* batch, fsw_batch_result* result) {
  return capi::Guard([&]() -> VoidResult {
    if (batch == nullptr) return capi::NullArgument("batch");
    if (result == nullptr) return capi::NullArgument("result");
    if (result->struct_bytes < sizeof *result) {
      return Error{Status::kUsage, "fsw_batch_result.struct_bytes is not set"};
    }
    if (auto ok = capi::SameProcess(*batch->owner); !ok) return ok.error();
    const auto held = capi::Hold(batch);
    const std::lock_guard lock(batch->owner->mutex);
    thread_local Finished f;  // of the calling thread: another thread's call must not free it
    f = Finished{};
    if (!batch->ended.empty()) {
      f = std::move(batch->ended.front());
      batch->ended.pop_front();
    }
    *result = {sizeof *result,
               f.id,
               f.error ? static_cast<fsw_status>(f.error->status) : FSW_OK,
               f.error ? f.error->message.c_str() : "",
               f.tokens.data(),
               f.tokens.size(),
               f.text.data(),
               f.text.size(),
               static_cast<int32_t>(f.finish),
               f.prompt_tokens,
               f.queue_ms,
               f.ttft_ms,
               f.total_ms};
    return Ok{};
  });
}

fsw_status fsw_batch_get_stats(fsw_batch* batch, fsw_batch_stats* stats) {
  return capi::Guard([&]() -> VoidResult {
    if (batch == nullptr) return capi::NullArgument("batch");
    if (stats == nullptr) return capi::NullArgument("stats");
    if (stats->struct_bytes < sizeof *stats) {
      return Error{Status::kUsage, "fsw_batch_stats.struct_bytes is not set"};
    }
    if (auto ok = capi::SameProcess(*batch->owner); !ok) return ok.error();
    const auto held = capi::Hold(batch);
    const std::lock_guard lock(batch->owner->mutex);
    const SchedulerStats s = batch->scheduler->stats();
    const auto page_bytes = static_cast<uint64_t>(batch->scheduler->cache().kv().PageBytes());
    *stats = {sizeof *stats,   s.waiting,         s.running,    s.steps,
              s.prompt_tokens, s.shared_tokens,   s.new_tokens, s.pages,
              s.used_pages,    s.peak_used_pages, page_bytes};
    return Ok{};
  });
}
