#include "sched/scheduler.h"

#include <algorithm>
#include <string>
#include <utility>

#include "sched/chunk_plan.h"
#include "sched/scheduled.h"

namespace fretsaw {
namespace {

// Tables of a step are sized for it; a step takes far fewer tokens.
constexpr int64_t kMostSequences = 1 << 16;

}  // namespace

Scheduler::Scheduler(Stepper* stepper, const GenerationRules& rules,
                     const SchedulerOptions& options, KvCache cache)
    : stepper_(stepper),
      rules_(rules),
      options_(options),
      rule_(stepper->chunk_rule()),
      budget_(std::min(options.max_batch_tokens, stepper->chunk_tokens())),
      cache_(std::move(cache)),
      prefixes_(&cache_) {
  // What a whole prompt is read by may depend on its last tokens, so its first ones are nobody
  // else's. Nor are those of a prompt that the cache does not keep.
  if (rule_.whole || !cache_.policy().keeps_prefix()) options_.share_prefixes = false;
  stepper_->Prepare(cache_);
  stats_.pages = cache_.pages();
}

Scheduler::~Scheduler() = default;

Result<std::unique_ptr<Scheduler>> Scheduler::Create(Stepper* stepper, const KvInfo& kv,
                                                     const GenerationRules& rules,
                                                     const SchedulerOptions& options) {
  const auto at_least_one = [](const char* name, int64_t value) {
    return Error{Status::kUsage, std::string(name) + ": " + std::to_string(value) +
                                     " is impossible; it must be at least 1"};
  };
  if (options.max_batch_tokens < 1)
    return at_least_one("max-batch-tokens", options.max_batch_tokens);
  if (options.max_sequences < 1) return at_least_one("max-sequences", options.max_sequences);
  if (options.max_sequences > kMostSequences) {
    return Error{Status::kUsage, "max-sequences: " + std::to_string(options.max_sequences) +
                                     " is impossible; it must be at most " +
                                     std::to_string(kMostSequences)};
  }
  if (options.max_queue < 1) return at_least_one("max-queue", options.max_queue);
  if (options.context < 1) return at_least_one("context", options.context);
  const int64_t align = stepper->chunk_rule().align;
  if (align > 1 && options.max_batch_tokens < 2 * align) {
    return Error{Status::kUsage, "max-batch-tokens: " + std::to_string(options.max_batch_tokens) +
                                     " is impossible; attention of this artifact reads blocks of " +
                                     std::to_string(align) + " tokens, and a step needs at least " +
                                     std::to_string(2 * align)};
  }
  const int64_t rows = kv.layers * kv.kv_heads;
  const int64_t columns = MostColumns(*MakeCachePolicy(kv), kv.page_tokens, options.context);
  int64_t pages = 0;
  if (__builtin_mul_overflow(rows * columns, options.max_sequences, &pages)) pages = INT64_MAX;
  if (options.kv_bytes > 0) {
    const auto column_bytes = static_cast<uint64_t>(kv.PageBytes() * rows);
    const uint64_t whole_columns = options.kv_bytes / column_bytes;
    if (whole_columns == 0) {
      return Error{Status::kUsage, "kv-memory: " + std::to_string(options.kv_bytes) +
                                       " bytes hold no token; " + std::to_string(column_bytes) +
                                       " bytes hold the first " + std::to_string(kv.page_tokens)};
    }
    pages = std::min(pages, static_cast<int64_t>(whole_columns) * rows);
  }
  auto cache = KvCache::CreateWithPages(kv, options.context, options.max_sequences, pages);
  if (!cache) return cache.error();
  return std::unique_ptr<Scheduler>(
      new Scheduler(stepper, rules, options, std::move(cache).value()));
}

Result<int64_t> Scheduler::Submit(ScheduledRequest request) {
  auto generation = Generation::Create(request.generate, rules_, cache_.tokens());
  if (!generation) return generation.error();
  const int64_t prompt = std::ssize(request.generate.prompt);
  if (rule_.whole && prompt > budget_) {
    return NotOneStep(prompt, budget_, stepper_->chunk_tokens());
  }
  // The last token is sampled and never appended.
  const int64_t most = std::min(cache_.tokens() - prompt, request.generate.max_new_tokens - 1);
  const int64_t pages = cache_.PagesFor(prompt + most);
  if (pages > cache_.pages()) {
    const auto size = [&](int64_t count) {
      const int64_t bytes = count * cache_.kv().PageBytes();
      constexpr int64_t kMiB = 1 << 20;
      return bytes < kMiB ? std::to_string(bytes) + " bytes"
                          : std::to_string((bytes + kMiB - 1) / kMiB) + " MiB";
    };
    return Error{Status::kOutOfMemory,
                 "prompt and max-new-tokens are " + std::to_string(prompt + most) +
                     " tokens, which need " + size(pages) + " of KV cache; it has " +
                     size(cache_.pages()) + "; shorten them or raise kv-memory"};
  }
  auto queued =
      std::make_unique<Request>(std::move(request), std::move(generation).value(), pages, Now());
  if (rule_.align > 1) queued->least_computed = 2;  // a single token would be taken for decoding
  const std::lock_guard lock(mutex_);
  if (queued_ >= options_.max_queue) {
    return Error{Status::kBusy, "the queue is full: " + std::to_string(queued_) +
                                    " requests wait; try again later"};
  }
  ++queued_;
  queued->id = next_id_++;
  inbox_.push_back(std::move(queued));
  return inbox_.back()->id;
}

std::chrono::steady_clock::time_point Scheduler::Now() const {
  return options_.clock ? options_.clock() : Clock::now();
}

void Scheduler::Cancel(int64_t id) {
  const std::lock_guard lock(mutex_);
  cancelled_.push_back(id);
}

void Scheduler::Intake() {
  std::vector<int64_t> cancelled;
  {
    const std::lock_guard lock(mutex_);
    for (auto& request : inbox_) waiting_.push_back(std::move(request));
    inbox_.clear();
    cancelled.swap(cancelled_);
  }
  if (cancelled.empty()) return;
  const auto end = [&](const std::unique_ptr<Request>& request) {
    if (std::find(cancelled.begin(), cancelled.end(), request->id) != cancelled.end()) {
      End(request.get(), FinishReason::kCancelled);
    }
  };
  std::for_each(waiting_.begin(), waiting_.end(), end);
  std::for_each(running_.begin(), running_.end(), end);
  DropEnded();
}

void Scheduler::EndOverdue() {
  const auto now = Now();
  const auto end = [&](const std::unique_ptr<Request>& request) {
    const auto& deadline = request->asked.deadline;
    if (deadline && *deadline <= now) End(request.get(), FinishReason::kDeadline);
  };
  std::for_each(waiting_.begin(), waiting_.end(), end);
  std::for_each(running_.begin(), running_.end(), end);
  DropEnded();
}

bool Scheduler::TryAdmit(Request* request) {
  request->sequence.emplace(&cache_);
  if (options_.share_prefixes) {
    prefixes_.Extend(request->prompt(), request->most_shared(), &*request->sequence,
                     &request->cursor);
  }
  // What everybody may still come to take; the pages held are counted once, however many hold them.
  int64_t wanted = request->pages - request->sequence->pages();
  for (const auto& other : running_) wanted += other->pages - other->sequence->pages();
  if (cache_.used_pages() + wanted > cache_.pages()) {
    request->sequence.reset();
    request->cursor = {};
    return false;
  }
  request->fed = request->sequence->num_computed_tokens();
  stats_.shared_tokens += request->fed;
  request->admitted = Now();
  return true;
}

void Scheduler::Admit() {
  int64_t admitted = 0;
  while (!waiting_.empty() && std::ssize(running_) < options_.max_sequences &&
         TryAdmit(waiting_.front().get())) {
    running_.push_back(std::move(waiting_.front()));
    waiting_.pop_front();
    ++admitted;
  }
  if (admitted == 0) return;
  const std::lock_guard lock(mutex_);
  queued_ -= admitted;
}

Result<bool> Scheduler::Step() {
  Intake();
  EndOverdue();
  Admit();
  if (running_.empty()) return false;
  batch_.clear();
  entries_.clear();
  PlanDecodes();
  PlanPrefills();
  auto ran = RunBatch();
  DropEnded();
  return ran;
}

// Decoding comes first, but leaves prompts a quarter of a step, or none would start while more
// sequences run than fit in a step; and at least what the oldest prompt needs to go on.
int64_t Scheduler::KeptForPrompts() const {
  const auto oldest = std::find_if(running_.begin(), running_.end(),
                                   [](const auto& request) { return request->reading(); });
  if (oldest == running_.end() || budget_ == 1) return 0;
  const int64_t least = rule_.whole        ? (*oldest)->remaining()
                        : rule_.align == 1 ? 1
                                           : rule_.align + 1;
  return std::max(least, budget_ / 4);
}

void Scheduler::PlanDecodes() {
  for (const auto& request : running_) {
    if (!request->reading()) batch_.push_back(request.get());
  }
  const auto most = static_cast<size_t>(budget_ - KeptForPrompts());
  if (batch_.size() > most) {  // who waited longest goes first
    std::stable_sort(batch_.begin(), batch_.end(), [](const Request* a, const Request* b) {
      return a->last_step < b->last_step;
    });
    batch_.resize(most);
  }
  for (Request* request : batch_) {
    entries_.push_back({&*request->sequence, {&request->next, 1}, LogitRows::kLast});
  }
}

bool Scheduler::FollowsAnother(const Request& request) const {
  const int64_t page = cache_.kv().page_tokens;
  const int64_t at = request.cursor.column * page;
  if (request.fed != at || at + page > request.most_shared()) return false;
  const auto wanted = request.prompt().subspan(static_cast<size_t>(at), static_cast<size_t>(page));
  for (const auto& other : running_) {
    if (other.get() == &request) return false;  // only older ones: the oldest follows nobody
    if (!other->reading() || other->cursor.entry != request.cursor.entry) continue;
    const auto theirs = other->prompt().subspan(static_cast<size_t>(at));
    if (theirs.size() >= wanted.size() &&
        std::equal(wanted.begin(), wanted.end(), theirs.begin())) {
      return true;
    }
  }
  return false;
}

void Scheduler::PlanPrefills() {
  const int64_t budget = budget_ - std::ssize(batch_);
  if (budget == 0) return;
  std::vector<Request*> reading;
  std::vector<int64_t> remaining;
  for (const auto& request : running_) {
    if (!request->reading()) continue;
    if (options_.share_prefixes) {
      const int64_t found = prefixes_.Extend(request->prompt(), request->most_shared(),
                                             &*request->sequence, &request->cursor);
      request->fed += found;
      stats_.shared_tokens += found;
      // Somebody older is computing the very page that comes next: wait for it.
      if (FollowsAnother(*request)) continue;
    }
    reading.push_back(request.get());
    remaining.push_back(std::min(request->remaining(), request->sequence->step_room()));
  }
  const auto chunks = DividePrefill(budget, remaining, rule_);
  for (size_t i = 0; i < reading.size(); ++i) {
    if (chunks[i] == 0) continue;
    Request* request = reading[i];
    const auto tokens = request->prompt().subspan(static_cast<size_t>(request->fed),
                                                  static_cast<size_t>(chunks[i]));
    const bool last = chunks[i] == request->remaining();
    entries_.push_back({&*request->sequence, tokens, last ? LogitRows::kLast : LogitRows::kNone});
    batch_.push_back(request);
  }
}

Result<bool> Scheduler::RunBatch() {
  int64_t wanted = 0;
  for (const BatchEntry& entry : entries_)
    wanted += entry.sequence->Wanted(std::ssize(entry.tokens));
  prefixes_.Reclaim(wanted);
  auto logits = stepper_->Step(cache_, entries_);
  if (!logits) {
    for (Request* request : batch_) Deliver(request, logits.error());
    return logits.error();
  }
  ++stats_.steps;
  stats_.peak_used_pages = std::max(stats_.peak_used_pages, cache_.used_pages());
  const auto vocab = static_cast<size_t>(stepper_->vocab_size());
  std::span<const float> rest = logits.value();
  for (size_t i = 0; i < batch_.size(); ++i) {
    Request* request = batch_[i];
    request->last_step = stats_.steps;
    if (request->reading()) {
      const int64_t count = std::ssize(entries_[i].tokens);
      request->fed += count;
      stats_.prompt_tokens += count;
      if (options_.share_prefixes) {
        prefixes_.Publish(request->prompt(), &*request->sequence, &request->cursor);
      }
    }
    if (entries_[i].rows == LogitRows::kNone) continue;
    TakeLogits(request, rest.first(vocab));
    rest = rest.subspan(vocab);
  }
  return true;
}

void Scheduler::TakeLogits(Request* request, std::span<const float> logits) {
  auto token =
      request->generation.Next(logits, request->sequence->room(), request->asked.on_token, false);
  if (!request->first_token) request->first_token = Now();
  ++stats_.new_tokens;
  if (!token) return Deliver(request, token.error());
  request->next = token.value();
  if (token.value() < 0) Deliver(request, std::nullopt);
}

void Scheduler::End(Request* request, FinishReason finish) {
  auto ended = request->generation.End(finish, request->asked.on_token);
  Deliver(request, ended ? std::nullopt : std::optional(ended.error()));
}

void Scheduler::Deliver(Request* request, std::optional<Error> error) {
  if (std::exchange(request->ended, true)) return;
  Finished finished = request->Report(Now());
  finished.error = std::move(error);
  request->sequence.reset();  // its pages are free before anybody hears of it
  if (request->asked.on_finish) request->asked.on_finish(std::move(finished));
}

void Scheduler::DropEnded() {
  const auto ended = [](const std::unique_ptr<Request>& request) { return request->ended; };
  std::erase_if(running_, ended);
  const auto dropped = static_cast<int64_t>(std::erase_if(waiting_, ended));
  if (dropped == 0) return;
  const std::lock_guard lock(mutex_);
  queued_ -= dropped;
}

SchedulerStats Scheduler::stats() const {
  SchedulerStats stats = stats_;
  stats.waiting = std::ssize(waiting_);
  stats.running = std::ssize(running_);
  stats.used_pages = cache_.used_pages();
  return stats;
}

}  // namespace fretsaw
