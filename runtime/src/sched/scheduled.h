// A request as the scheduler keeps it, from Submit to on_finish.
#pragma once

#include <chrono>
#include <optional>
#include <utility>

#include "sched/scheduler.h"

namespace fretsaw {

using Clock = std::chrono::steady_clock;

struct Scheduler::Request {
  Request(ScheduledRequest request, Generation begun, int64_t most_pages, Clock::time_point now)
      : asked(std::move(request)),
        generation(std::move(begun)),
        pages(most_pages),
        submitted(now) {}

  std::span<const int32_t> prompt() const { return asked.generate.prompt; }
  int64_t remaining() const { return std::ssize(prompt()) - fed; }
  bool reading() const { return remaining() > 0; }
  // The last token of a prompt is always computed: its logits are wanted.
  int64_t most_shared() const { return std::ssize(prompt()) - least_computed; }

  Finished Report(Clock::time_point now) const {
    const auto ms = [&](Clock::time_point to) {
      return std::chrono::duration<double, std::milli>(to - submitted).count();
    };
    Finished finished;
    finished.id = id;
    finished.prompt_tokens = std::ssize(prompt());
    finished.tokens = generation.tokens();
    finished.text = generation.text();
    finished.finish = generation.finish();
    finished.queue_ms = ms(admitted.value_or(now));
    finished.ttft_ms = first_token ? ms(*first_token) : 0;
    finished.total_ms = ms(now);
    return finished;
  }

  ScheduledRequest asked;
  Generation generation;
  int64_t pages;  // most it may come to hold
  int64_t id = 0;
  std::optional<Sequence> sequence;  // while it is admitted
  PrefixCursor cursor;
  int64_t least_computed = 1;  // of the prompt's last tokens
  int64_t fed = 0;             // tokens of the prompt in the cache
  int32_t next = 0;            // the token to append, once the prompt is read
  int64_t last_step = 0;
  bool ended = false;
  Clock::time_point submitted;
  std::optional<Clock::time_point> admitted, first_token;
};

}  // namespace fretsaw
