// --batch: many requests from a file, their results into another.
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstring>

#include "base/memory_use.h"
#include "base/sha256.h"
#include "cli/commands.h"
#include "model/model.h"
#include "sched/batch_line.h"
#include "sched/results_file.h"
#include "sched/scheduler.h"

namespace fretsaw::cli {
namespace {

using nlohmann::ordered_json;

constexpr uint64_t kDefaultKvBytes = uint64_t{1} << 30;

std::span<const uint8_t> Bytes(std::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

// Everything but the line itself that a result depends on.
Digest Fingerprint(const Options& o, const Artifact& artifact) {
  const SamplingOptions& s = o.sampling;
  const ordered_json defaults = {{"max_new_tokens", o.max_new_tokens},
                                 {"context", o.context.value_or(0)},
                                 {"stop", o.stop},
                                 {"chat", o.chat},
                                 {"system", o.system.value_or("")},
                                 {"ignore_eos", o.ignore_eos},
                                 {"temperature", s.temperature},
                                 {"top_k", s.top_k},
                                 {"top_p", s.top_p},
                                 {"min_p", s.min_p},
                                 {"repetition_penalty", s.repetition_penalty},
                                 {"seed", s.seed}};
  const std::string text = defaults.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
  return Sha256({Bytes(artifact.container().manifest()), Bytes(text)});
}

ordered_json ErrorJson(const Error& error) {
  return {{"status", StatusName(error.status)},
          {"code", static_cast<int>(error.status)},
          {"message", error.message}};
}

// Progress on standard error: one line that is rewritten on a terminal, else one every ten seconds.
class Progress {
 public:
  explicit Progress(bool quiet) : quiet_(quiet), terminal_(isatty(STDERR_FILENO) == 1) {}

  void Show(int64_t done, int64_t failed, const SchedulerStats& stats) {
    if (quiet_ || MsSince(shown_) < (terminal_ ? 500 : 10000)) return;
    const double ms = MsSince(shown_);
    const int64_t tokens = stats.prompt_tokens + stats.new_tokens;
    std::fprintf(stderr,
                 "%s[%lld done, %lld failed; %lld running, %lld waiting; %.0f tok/s; KV %.0f %%]%s",
                 terminal_ ? "\r\033[K" : "", static_cast<long long>(done),
                 static_cast<long long>(failed), static_cast<long long>(stats.running),
                 static_cast<long long>(stats.waiting), Rate(tokens - tokens_, ms),
                 100.0 * static_cast<double>(stats.used_pages) / static_cast<double>(stats.pages),
                 terminal_ ? "" : "\n");
    std::fflush(stderr);
    tokens_ = tokens;
    shown_ = Clock::now();
    dirty_ = terminal_;
  }

  // Removes the line.
  void Clear() {
    if (std::exchange(dirty_, false)) std::fputs("\r\033[K", stderr);
  }

 private:
  bool quiet_, terminal_, dirty_ = false;
  int64_t tokens_ = 0;
  Clock::time_point shown_ = Clock::now();
};

class Batch {
 public:
  Batch(const Options& options, const TextCodec& codec, Digest fingerprint, LineReader reader,
        ResultsFile results)
      : options_(options),
        codec_(codec),
        fingerprint_(fingerprint),
        reader_(std::move(reader)),
        results_(std::move(results)),
        failed_(results_.resumed_failures()) {
    defaults_.request.max_new_tokens = options.max_new_tokens;
    defaults_.request.sampling = options.sampling;
    defaults_.request.stop = options.stop;
    defaults_.request.ignore_eos = options.ignore_eos;
    defaults_.chat = options.chat;
    defaults_.system = options.system;
  }

  // The process's exit code: 0, kSomeFailedExit, or kInterruptedExit.
  Result<int> Run(Scheduler* scheduler) {
    Progress progress(options_.quiet);
    bool more = true, worked = true;
    while (more || worked) {
      if (Interrupted().load()) break;
      while (more && in_flight_ < 2 * options_.max_sequences &&
             !reader_.WouldWait(in_flight_ == 0 ? 200 : 0)) {
        auto read = ReadOne(scheduler);
        if (!read) return read.error();
        more = read.value();
      }
      auto stepped = scheduler->Step();
      if (fatal_) return *fatal_;
      if (!stepped) return stepped.error();
      worked = stepped.value();
      progress.Show(done_, failed_, scheduler->stats());
    }
    progress.Clear();
    if (more || in_flight_ > 0) return kInterruptedExit;
    if (auto ok = results_.Finish(lines_); !ok) return ok.error();
    return failed_ > 0 ? kSomeFailedExit : 0;
  }

  int64_t lines() const { return lines_; }
  int64_t done() const { return done_; }
  int64_t failed() const { return failed_; }
  int64_t resumed() const { return results_.resumed(); }

 private:
  // Handles the next line of the input; false at its end.
  Result<bool> ReadOne(Scheduler* scheduler) {
    auto next = reader_.Next();
    if (!next) return next.error();
    if (!next.value()) return false;
    const Line& line = *next.value();
    lines_ = line.number;
    const std::string bytes = std::to_string(line.bytes);
    const std::string key =
        ToHex(Sha256({fingerprint_, Bytes(bytes), Bytes(" "), Bytes(line.text)})).substr(0, 16);
    auto has = results_.Has(line.number, key);
    if (!has) return has.error();
    if (has.value()) return true;
    BatchLine parsed = ParseBatchLine(line, defaults_, codec_);
    if (!parsed.error) Submit(scheduler, line.number, key, &parsed);
    if (parsed.error) {
      Finished refused;
      refused.error = parsed.error;
      Record(line.number, key, parsed.id, refused);
    }
    if (fatal_) return *fatal_;
    return true;
  }

  void Submit(Scheduler* scheduler, int64_t line, const std::string& key, BatchLine* parsed) {
    ScheduledRequest request;
    request.generate = std::move(parsed->request);
    if (parsed->timeout_ms) {
      request.deadline = Clock::now() + std::chrono::microseconds(
                                            static_cast<int64_t>(*parsed->timeout_ms * 1000));
    }
    request.on_finish = [this, line, key, id = parsed->id](Finished&& finished) {
      --in_flight_;
      Record(line, key, id, finished);
    };
    auto submitted = scheduler->Submit(std::move(request));
    if (submitted) {
      ++in_flight_;
    } else {
      parsed->error = submitted.error();
    }
  }

  void Record(int64_t line, const std::string& key, const nlohmann::json& id,
              const Finished& finished) {
    // A bug of ours is no result: the line is to be done again once it is mended.
    if (finished.error && finished.error->status == Status::kInternal) fatal_ = finished.error;
    if (fatal_) return;
    ordered_json result = {{"line", line}};
    if (!id.is_null()) result["id"] = id;
    if (finished.error) {
      result["error"] = ErrorJson(*finished.error);
      ++failed_;
    } else {
      result["prompt_tokens"] = finished.prompt_tokens;
      result["tokens"] = finished.tokens;
      result["text"] = finished.text;
      result["finish_reason"] = FinishReasonName(finished.finish);
      result["timing"] = {{"queue_ms", finished.queue_ms},
                          {"ttft_ms", finished.ttft_ms},
                          {"total_ms", finished.total_ms}};
    }
    result["key"] = key;
    ++done_;
    auto added = results_.Add(line, key,
                              result.dump(-1, ' ', false, ordered_json::error_handler_t::replace));
    if (!added) fatal_ = added.error();
  }

  const Options& options_;
  const TextCodec& codec_;
  Digest fingerprint_;
  LineReader reader_;
  ResultsFile results_;
  BatchDefaults defaults_;
  int64_t lines_ = 0, done_ = 0, failed_ = 0, in_flight_ = 0;
  std::optional<Error> fatal_;
};

SchedulerOptions Scheduling(const Options& options, const Manifest& manifest) {
  SchedulerOptions o;
  o.max_batch_tokens = options.max_batch_tokens;
  o.max_sequences = options.max_sequences;
  o.max_queue = 2 * options.max_sequences;
  o.context = options.context.value_or(manifest.model.context);
  const uint64_t one = SequenceBytes(manifest.kv, o.context);
  o.kv_bytes = options.kv_memory.value_or(std::max(kDefaultKvBytes, one));
  return o;
}

VoidResult Report(const Options& options, const Batch& batch, const Scheduler& scheduler,
                  int64_t page_bytes, double load_ms, double total_ms) {
  const SchedulerStats stats = scheduler.stats();
  const double new_rate = Rate(stats.new_tokens, total_ms);
  const double all_rate =
      Rate(stats.prompt_tokens + stats.shared_tokens + stats.new_tokens, total_ms);
  if (options.json) {
    return PrintJson({{"lines", batch.lines()},
                      {"done", batch.done()},
                      {"resumed", batch.resumed()},
                      {"failed", batch.failed()},
                      {"steps", stats.steps},
                      {"prompt_tokens", stats.prompt_tokens},
                      {"shared_tokens", stats.shared_tokens},
                      {"new_tokens", stats.new_tokens},
                      {"timing",
                       {{"load_ms", load_ms},
                        {"total_ms", total_ms},
                        {"new_tok_s", new_rate},
                        {"tok_s", all_rate}}},
                      {"memory",
                       {{"kv_bytes", stats.pages * page_bytes},
                        {"kv_peak_bytes", stats.peak_used_pages * page_bytes},
                        {"peak_rss_bytes", PeakResidentBytes()}}}});
  }
  if (!options.quiet) {
    std::fprintf(stderr,
                 "[%lld lines: %lld done, %lld resumed, %lld failed; %lld prompt and %lld new "
                 "tokens in %.1f s, %.1f tok/s, %.1f new tok/s; KV peak %lld of %lld MiB]\n",
                 static_cast<long long>(batch.lines()), static_cast<long long>(batch.done()),
                 static_cast<long long>(batch.resumed()), static_cast<long long>(batch.failed()),
                 static_cast<long long>(stats.prompt_tokens + stats.shared_tokens),
                 static_cast<long long>(stats.new_tokens), total_ms / 1000, all_rate, new_rate,
                 static_cast<long long>((stats.peak_used_pages * page_bytes) >> 20),
                 static_cast<long long>((stats.pages * page_bytes) >> 20));
  }
  return Ok{};
}

}  // namespace

Result<int> RunBatch(const Options& options, Artifact artifact, Clock::time_point start) {
  auto codec = TextCodec::Load(artifact);
  if (!codec) return codec.error();
  const int64_t context = artifact.manifest().model.context;
  if (options.context.value_or(1) > context) {
    return Error{Status::kUsage, "a context of " + std::to_string(*options.context) +
                                     " tokens is not between 1 and the model's " +
                                     std::to_string(context)};
  }
  auto reader = LineReader::Open(*options.batch, kMaxBatchLineBytes);
  if (!reader) return reader.error();
  const Digest fingerprint = Fingerprint(options, artifact);
  auto loaded =
      Model::Load(std::move(artifact), {options.threads.value_or(0), options.cpu, options.verify});
  if (!loaded) return loaded.error();
  Model& model = *loaded.value();
  const Manifest& manifest = model.manifest();
  auto scheduler = Scheduler::Create(
      &model.stepper(), manifest.kv,
      {manifest.model.vocab_size, manifest.generation.eos_token_ids, &codec.value()},
      Scheduling(options, manifest));
  if (!scheduler) return scheduler.error();
  auto results = ResultsFile::Open(*options.out);
  if (!results) return results.error();
  // Who watches the progress may leave; the results go to a file.
  std::signal(SIGPIPE, SIG_IGN);
  Batch batch(options, codec.value(), fingerprint, std::move(reader).value(),
              std::move(results).value());
  const double load_ms = MsSince(start);
  const auto began = Clock::now();
  auto code = batch.Run(scheduler.value().get());
  if (!code) return code.error();
  auto reported =
      Report(options, batch, *scheduler.value(), manifest.kv.PageBytes(), load_ms, MsSince(began));
  if (!reported) return reported.error();
  return code;
}

}  // namespace fretsaw::cli
