// Scheduler: every request gets the tokens it would get alone, whatever the schedule; limits hold;
// nothing is lost and no page is left behind.
#include "sched/scheduler.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <thread>

#include "sampler/prng.h"
#include "sched/scheduler_fixture.h"

namespace fretsaw {
namespace {

using std::chrono::steady_clock;
using testing::FakeKv;
using testing::FakeModel;
using testing::Fixture;
using testing::Ids;
using testing::kColumnBytes;
using testing::kPage;
using testing::Oracle;
using testing::RandomIds;

TEST_CASE("scheduler: one request") {
  Fixture f;
  const Ids prompt = {1, 2, 3, 4, 5};
  REQUIRE(f.Submit(prompt, 10).value() == 1);
  f.Drain();
  const Finished& finished = f.done.at(1);
  CHECK(finished.tokens == Oracle(prompt, 10, 64));
  CHECK(finished.prompt_tokens == 5);
  CHECK(finished.total_ms >= finished.ttft_ms);
  CHECK(finished.ttft_ms >= finished.queue_ms);
  CHECK(f.scheduler->stats().used_pages == 0);
}

// Thousands of schedules: budgets, page limits, sharing and arrivals are all random.
TEST_CASE("scheduler: tokens do not depend on the schedule") {
  SplitMix64 random(7);
  for (int round = 0; round < 300; ++round) {
    SchedulerOptions options;
    options.max_batch_tokens = 1 + static_cast<int64_t>(random.Next() % 20);
    options.max_sequences = 1 + static_cast<int64_t>(random.Next() % 9);
    options.kv_bytes = kColumnBytes * (16 + random.Next() % 40);  // 16: one whole context
    options.share_prefixes = random.Next() % 4 != 0;
    Fixture f(options);
    const Ids common = RandomIds(&random, 20);
    std::map<int64_t, Ids> want;
    const auto requests = 1 + static_cast<int64_t>(random.Next() % 12);
    for (int64_t i = 0; i < requests; ++i) {
      Ids prompt(common.begin(), common.begin() + static_cast<int64_t>(random.Next() % 20));
      const Ids own = RandomIds(&random, 1 + static_cast<int64_t>(random.Next() % 30));
      prompt.insert(prompt.end(), own.begin(), own.end());
      const auto count = 1 + static_cast<int64_t>(random.Next() % 25);
      auto id = f.Submit(prompt, count);
      REQUIRE(id.ok());
      want[id.value()] = Oracle(prompt, count, 64);
      for (uint64_t steps = random.Next() % 3; steps > 0; --steps)
        REQUIRE(f.scheduler->Step().ok());
      CHECK(f.model.program->last_tokens <= options.max_batch_tokens);
      CHECK(f.model.program->last_batch <= options.max_sequences);
    }
    f.Drain();
    REQUIRE(f.done.size() == want.size());
    for (const auto& [id, tokens] : want) {
      CHECK(f.done.at(id).tokens == tokens);
      CHECK_FALSE(f.done.at(id).error.has_value());
    }
    CHECK(f.scheduler->cache().used_pages() == 0);
  }
}

TEST_CASE("scheduler: draws depend on the request's seed alone") {
  SamplingOptions sampling;
  sampling.temperature = 1.5;
  sampling.top_k = 20;
  sampling.repetition_penalty = 1.1;
  const auto draw = [&](uint64_t seed, int64_t others) {
    Fixture f;
    for (int64_t i = 0; i < others; ++i) {
      SamplingOptions other = sampling;
      other.seed = 100 + static_cast<uint64_t>(i);
      REQUIRE(f.Submit({9, static_cast<int32_t>(i)}, 30, other).ok());
    }
    sampling.seed = seed;
    const auto id = f.Submit({1, 2, 3}, 30, sampling).value();
    f.Drain();
    return f.done.at(id).tokens;
  };
  CHECK(draw(1, 0) == draw(1, 7));
  CHECK(draw(1, 0) != draw(2, 0));
}

TEST_CASE("scheduler: a short request behind a long prompt answers within three steps") {
  SchedulerOptions options;
  options.context = 2100;
  options.share_prefixes = false;
  Fixture f(options, 128);
  SplitMix64 random(3);
  REQUIRE(f.Submit(RandomIds(&random, 2000), 8).ok());
  // It comes while the first piece of the long prompt is being computed.
  int64_t arrived = 0;
  int64_t answered = 0;
  f.model.program->on_step = [&] {
    if (f.model.program->steps != 1) return;
    arrived = f.model.program->steps;
    auto request = Fixture::Make(RandomIds(&random, 16), 1);
    request.on_token = [&](int32_t, std::string_view) {
      answered = f.model.program->steps;
      return true;
    };
    REQUIRE(f.Submit(std::move(request)).ok());
  };
  for (int i = 0; i < 5; ++i) REQUIRE(f.scheduler->Step().ok());
  CHECK(answered > arrived);
  CHECK(answered - arrived < 3);
  CHECK(f.model.program->last_tokens == 128);  // the long one goes on at full speed
}

TEST_CASE(
    "scheduler: decoding goes on while prompts are read, and the oldest prompt is not starved") {
  SchedulerOptions options;
  options.max_batch_tokens = 4;
  options.share_prefixes = false;
  Fixture f(options);
  SplitMix64 random(5);
  int64_t tokens = 0;
  auto talker = Fixture::Make({1}, 60);
  talker.generate.ignore_eos = true;
  talker.on_token = [&](int32_t, std::string_view) { return ++tokens > 0; };
  REQUIRE(f.Submit(std::move(talker)).ok());
  REQUIRE(f.scheduler->Step().ok());
  for (int i = 0; i < 6; ++i) REQUIRE(f.Submit(RandomIds(&random, 40), 1).ok());
  for (int64_t i = 0; i < 20; ++i) {
    CHECK(tokens == 1 + i);  // one each step
    REQUIRE(f.scheduler->Step().ok());
  }
  CHECK(f.done.count(2) == 1);  // 40 tokens at 2 of the 3 left
  CHECK(f.done.count(3) == 0);
  f.Drain();
  CHECK(f.done.size() == 7);
}

TEST_CASE("scheduler: more sequences than a step has tokens all go on") {
  SchedulerOptions options;
  options.max_batch_tokens = 3;
  options.max_sequences = 10;
  Fixture f(options);
  std::map<int64_t, Ids> want;
  for (int32_t i = 0; i < 10; ++i) {
    want[f.Submit({i, 5}, 12).value()] = Oracle({i, 5}, 12, 64);
  }
  f.Drain();
  for (const auto& [id, tokens] : want) CHECK(f.done.at(id).tokens == tokens);
}

TEST_CASE("scheduler: admission waits for pages, in order, and never takes one away") {
  SchedulerOptions options;
  options.kv_bytes = kColumnBytes * 10;
  options.share_prefixes = false;
  Fixture f(options);
  // 5 + 16 - 1 tokens are 5 pages: two fit at once.
  for (int32_t i = 0; i < 5; ++i) REQUIRE(f.Submit({i, 1, 2, 3, 4}, 16).ok());
  REQUIRE(f.Submit({1}, 1).ok());  // would fit, but others were first
  std::vector<int64_t> order;
  while (f.scheduler->Step().value()) {
    CHECK(f.scheduler->stats().running <= 2);
    CHECK(f.scheduler->stats().used_pages <= 40);
    for (const auto& [id, finished] : f.done) {
      if (std::find(order.begin(), order.end(), id) == order.end()) order.push_back(id);
    }
  }
  CHECK(f.done.size() == 6);
  for (int32_t i = 0; i < 5; ++i) {
    CHECK(f.done.at(i + 1).tokens == Oracle({i, 1, 2, 3, 4}, 16, 64));
  }
  CHECK(f.scheduler->stats().peak_used_pages <= 40);
}

TEST_CASE("scheduler: what could never be admitted is refused at once") {
  SchedulerOptions options;
  options.kv_bytes = kColumnBytes * 4;
  options.max_queue = 2;
  Fixture f(options);
  CHECK(f.Submit({1, 2, 3}, 14).ok());
  CHECK(f.Submit({1, 2, 3}, 15).error().message ==
        "prompt and max-new-tokens are 17 tokens, which need 640 bytes of KV cache; it has 512 "
        "bytes; "
        "shorten them or raise kv-memory");
  CHECK(f.Submit({1, 2, 3}, 15).error().status == Status::kOutOfMemory);
  CHECK(f.Submit({}, 1).error().status == Status::kBadInput);
  CHECK(f.Submit({97}, 1).error().message == "token id 97 is outside the vocabulary of 97");
  CHECK(f.Submit({-1}, 1).error().status == Status::kBadInput);
  CHECK(f.Submit({1}, 0).error().status == Status::kUsage);
  CHECK(f.Submit(Ids(65, 1), 1).error().status == Status::kPromptTooLong);
  auto stops = Fixture::Make({1}, 1);
  stops.generate.stop = {"x"};
  CHECK(f.Submit(std::move(stops)).error().status == Status::kUnsupported);
  CHECK(f.Submit({1}, 1).ok());
  const Error busy = f.Submit({1}, 1).error();
  CHECK(busy.status == Status::kBusy);
  CHECK(busy.message == "the queue is full: 2 requests wait; try again later");
  f.Drain();
  CHECK(f.Submit({1}, 1).ok());  // there is room again
  f.Drain();
  CHECK(f.done.size() == 3);
}

TEST_CASE("scheduler: impossible options") {
  FakeModel model;
  const auto status = [&](SchedulerOptions options) {
    return Scheduler::Create(&model.stepper, FakeKv(), model.rules(), options).error();
  };
  SchedulerOptions options;
  CHECK(status(options).message == "context: 0 is impossible; it must be at least 1");
  options.context = 64;
  options.kv_bytes = kColumnBytes - 1;
  CHECK(status(options).message ==
        "kv-memory: 127 bytes hold no token; 128 bytes hold the first 4");
  options.max_sequences = 0;
  CHECK(status(options).status == Status::kUsage);
  options.max_sequences = 65537;
  CHECK(status(options).message == "max-sequences: 65537 is impossible; it must be at most 65536");
  options.max_sequences = 65536;
  options.kv_bytes = 0;
  options.context = int64_t{1} << 40;
  CHECK(status(options).status == Status::kOutOfMemory);
}

TEST_CASE("scheduler: a full context ends with length") {
  Fixture f;
  const Ids prompt(60, 3);
  auto request = Fixture::Make(prompt, 50);
  request.generate.ignore_eos = true;
  const auto id = f.Submit(std::move(request)).value();
  f.Drain();
  CHECK(f.done.at(id).tokens.size() == 5);
  CHECK(f.done.at(id).finish == FinishReason::kLength);
}

TEST_CASE("scheduler: cancellation in every state") {
  SchedulerOptions options;
  options.max_sequences = 2;
  options.max_batch_tokens = 8;
  options.share_prefixes = false;
  Fixture f(options);
  SplitMix64 random(11);
  const auto decoding = f.Submit({1}, 60).value();
  REQUIRE(f.scheduler->Step().ok());
  const auto reading = f.Submit(RandomIds(&random, 40), 5).value();
  REQUIRE(f.scheduler->Step().ok());
  const auto waiting = f.Submit({2, 3}, 5).value();
  REQUIRE(f.scheduler->Step().ok());
  const auto submitted = f.Submit({4}, 5).value();
  REQUIRE(f.done.empty());
  const auto used = f.scheduler->stats().used_pages;
  CHECK(used > 0);
  for (const int64_t id : {decoding, reading, waiting, submitted, int64_t{999}}) {
    f.scheduler->Cancel(id);
  }
  CHECK_FALSE(f.scheduler->Step().value());
  REQUIRE(f.done.size() == 4);
  for (const auto& [id, finished] : f.done) CHECK(finished.finish == FinishReason::kCancelled);
  const Ids whole = Oracle({1}, 60, 64);
  const Ids& got = f.done.at(decoding).tokens;
  CHECK(got == Ids(whole.begin(), whole.begin() + std::ssize(got)));
  CHECK(got.size() >= 2);
  CHECK(f.done.at(reading).tokens.empty());
  CHECK(f.scheduler->stats().used_pages == 0);
  f.scheduler->Cancel(decoding);  // long over
  REQUIRE(f.Submit({1}, 3).ok());
  f.Drain();
  CHECK(f.done.size() == 5);
}

TEST_CASE("scheduler: on_token that returns false, and callbacks that submit and cancel") {
  Fixture f;
  int64_t second = 0;
  auto request = Fixture::Make({1}, 60);
  request.on_token = [&, count = 0](int32_t, std::string_view) mutable {
    if (++count == 2) second = f.Submit({1, 2}, 60).value();
    if (count == 4) f.scheduler->Cancel(second);
    return count < 6;
  };
  const auto first = f.Submit(std::move(request)).value();
  f.Drain();
  CHECK(f.done.at(first).tokens.size() == 6);
  CHECK(f.done.at(first).finish == FinishReason::kCancelled);
  CHECK(f.done.at(second).finish == FinishReason::kCancelled);
}

TEST_CASE("scheduler: deadlines, waiting and running, and the times of a request") {
  steady_clock::time_point now{std::chrono::seconds(100)};
  SchedulerOptions options;
  options.max_sequences = 1;
  options.clock = [&] { return now; };
  Fixture f(options);
  auto running = Fixture::Make({1}, 60);
  running.generate.ignore_eos = true;
  running.deadline = now + std::chrono::milliseconds(40);
  auto late = Fixture::Make({2}, 60);
  late.deadline = now;
  const auto a = f.Submit(std::move(running)).value();
  const auto b = f.Submit(std::move(late)).value();
  now += std::chrono::milliseconds(10);
  REQUIRE(f.scheduler->Step().ok());
  CHECK(f.done.at(b).finish == FinishReason::kDeadline);
  CHECK(f.done.at(b).tokens.empty());
  CHECK(f.done.at(b).queue_ms == 10);
  CHECK(f.done.at(b).ttft_ms == 0);
  now += std::chrono::milliseconds(29);
  CHECK(f.scheduler->Step().value());
  CHECK(f.done.size() == 1);
  now += std::chrono::milliseconds(1);
  CHECK_FALSE(f.scheduler->Step().value());
  CHECK(f.done.at(a).finish == FinishReason::kDeadline);
  CHECK(f.done.at(a).tokens.size() == 2);
  CHECK(f.done.at(a).queue_ms == 10);
  CHECK(f.done.at(a).ttft_ms == 10);
  CHECK(f.done.at(a).total_ms == 40);
  CHECK(f.scheduler->stats().used_pages == 0);
}

TEST_CASE("scheduler: a deadline or a cancellation while a prompt is read") {
  steady_clock::time_point now{};
  SchedulerOptions options;
  options.max_batch_tokens = 8;
  options.clock = [&] { return now; };
  Fixture f(options);
  SplitMix64 random(29);
  auto request = Fixture::Make(RandomIds(&random, 40), 5);
  request.deadline = now + std::chrono::milliseconds(1);
  const auto id = f.Submit(std::move(request)).value();
  REQUIRE(f.scheduler->Step().value());
  CHECK(f.scheduler->stats().used_pages == 4 * 2);
  now += std::chrono::milliseconds(1);
  CHECK_FALSE(f.scheduler->Step().value());
  CHECK(f.done.at(id).finish == FinishReason::kDeadline);
  CHECK(f.scheduler->stats().used_pages == 0);
}

TEST_CASE("scheduler: pages are within one per row and sequence of what the tokens need") {
  for (const bool share : {false, true}) {
    SchedulerOptions options;
    options.max_batch_tokens = 13;
    options.share_prefixes = share;
    Fixture f(options);
    SplitMix64 random(31);
    for (int i = 0; i < 40; ++i) {
      REQUIRE(f.Submit(RandomIds(&random, 1 + static_cast<int64_t>(random.Next() % 50)),
                       1 + static_cast<int64_t>(random.Next() % 14))
                  .ok());
    }
    int64_t most = 0;
    f.model.program->on_args = [&](const StepArgs& a) {
      // Lengths after this step, in every row.
      int64_t tokens = 0;
      for (int64_t b = 0; b < a.batch; ++b) {
        const auto i = static_cast<size_t>(b);
        tokens += a.lens[i * static_cast<size_t>(a.kv_heads)] + a.cu[i + 1] - a.cu[i];
      }
      // Those that sit this step out hold pages too, so only a step with all of them says enough.
      if (a.batch < f.scheduler->stats().running) return;
      const int64_t rows = a.layers * a.kv_heads;
      CHECK(f.scheduler->cache().used_pages() * kPage < rows * (tokens + a.batch * kPage));
      most = std::max(most, a.batch);
    };
    f.Drain();
    CHECK(most > 5);
    CHECK(f.done.size() == 40);
  }
}

TEST_CASE("scheduler: a program that fails ends the requests of that step, and only those") {
  SchedulerOptions options;
  options.max_sequences = 2;
  Fixture f(options);
  for (int32_t i = 0; i < 3; ++i) REQUIRE(f.Submit({i}, 5).ok());
  f.model.program->fail = true;
  CHECK(f.scheduler->Step().error().message == "made to fail");
  f.model.program->fail = false;
  CHECK(f.done.size() == 2);
  CHECK(f.done.at(1).error->status == Status::kInternal);
  f.Drain();
  CHECK(f.done.at(3).tokens == Oracle({2}, 5, 64));
  CHECK(f.scheduler->stats().used_pages == 0);
}

TEST_CASE("scheduler: equal prefixes are computed once") {
  SchedulerOptions options;
  options.max_batch_tokens = 32;
  Fixture f(options, 32);
  SplitMix64 random(17);
  const Ids common = RandomIds(&random, 20);
  std::map<int64_t, Ids> want;
  for (int32_t i = 0; i < 6; ++i) {
    Ids prompt = common;
    prompt.push_back(i);
    want[f.Submit(prompt, 3).value()] = Oracle(prompt, 3, 64);
  }
  f.Drain();
  for (const auto& [id, tokens] : want) CHECK(f.done.at(id).tokens == tokens);
  CHECK(f.scheduler->stats().prompt_tokens == 21 + 5);
  CHECK(f.scheduler->stats().shared_tokens == 5 * 20);
  // The very same prompt again: all but its last page, so that there is something to compute.
  Ids prompt = common;
  want[f.Submit(prompt, 3).value()] = Oracle(prompt, 3, 64);
  f.Drain();
  CHECK(f.done.at(7).tokens == want.at(7));
  CHECK(f.scheduler->stats().prompt_tokens == 26 + 4);
}

TEST_CASE("scheduler: ten thousand sequences leave no page behind") {
  SchedulerOptions options;
  options.kv_bytes = kColumnBytes * 60;
  options.max_queue = 20;
  Fixture f(options);
  SplitMix64 random(23);
  int64_t submitted = 0;
  while (submitted < 10000) {
    auto id = f.Submit(RandomIds(&random, 1 + static_cast<int64_t>(random.Next() % 12)),
                       1 + static_cast<int64_t>(random.Next() % 6));
    if (id) {
      ++submitted;
      if (random.Next() % 8 == 0) f.scheduler->Cancel(id.value());
    } else {
      REQUIRE(id.error().status == Status::kBusy);
      REQUIRE(f.scheduler->Step().ok());
    }
  }
  f.Drain();
  CHECK(f.done.size() == 10000);
  CHECK(f.scheduler->cache().used_pages() == 0);
  CHECK(f.scheduler->stats().peak_used_pages <= 240);
}

}  // namespace
}  // namespace fretsaw
