// Scheduler over a cache that evicts: tokens are those of the rows that the policy leaves, whatever
// the schedule; admission counts on what rows may come to hold, not on what they see.
#include <doctest/doctest.h>

#include <algorithm>
#include <map>

#include "model/window_case.h"
#include "sched/scheduler_fixture.h"

namespace fretsaw {
namespace {

using testing::FakeKv;
using testing::FakeLogits;
using testing::Fixture;
using testing::Ids;
using testing::kColumnBytes;
using testing::kEos;
using testing::kPage;
using testing::kVocab;
using testing::RandomIds;

constexpr int64_t kSinks = 3, kWindow = 9;
constexpr int64_t kColumns = (4 + 9 + 4 + 3) / 4;  // of a row at most: head, window, a page
constexpr int64_t kWindowContext = 64;

KvInfo WindowedKv() {
  KvInfo kv = FakeKv();
  kv.policy = WindowPolicy{kSinks, kWindow};
  return kv;
}

// Greedy continuation in which every token sees what is held before it, and itself.
Ids WindowOracle(Ids tokens, int64_t count) {
  Ids out;
  std::vector<float> row(kVocab);
  while (std::ssize(out) < count && std::ssize(tokens) <= kWindowContext) {
    const int64_t last = std::ssize(tokens) - 1;
    uint64_t state = 1;
    for (int64_t r = 0; r < 4; ++r) {
      for (int64_t i = 0; i <= last; ++i) {
        if (i < last && !testing::Held(i, last, kSinks, kWindow, kPage)) continue;
        state = testing::Mix(state, tokens[static_cast<size_t>(i)], i);
      }
    }
    FakeLogits(state, row);
    out.push_back(static_cast<int32_t>(std::max_element(row.begin(), row.end()) - row.begin()));
    tokens.push_back(out.back());
    if (out.back() == kEos) break;
  }
  return out;
}

TEST_CASE("scheduler: with a window, tokens do not depend on the schedule") {
  SplitMix64 random(11);
  int64_t cancelled = 0;
  for (int round = 0; round < 200; ++round) {
    SchedulerOptions options;
    options.context = kWindowContext;
    options.max_batch_tokens = 1 + static_cast<int64_t>(random.Next() % 20);
    options.max_sequences = 1 + static_cast<int64_t>(random.Next() % 9);
    options.kv_bytes = kColumnBytes * (static_cast<uint64_t>(kColumns) + random.Next() % 20);
    Fixture f(options, 16, {}, WindowedKv());
    f.model.program->on_args = [](const StepArgs& args) {
      CHECK(args.max_pages <= kColumns);
      for (const int32_t len : args.lens) CHECK(len < kColumns * kPage);
    };
    std::map<int64_t, Ids> want;
    std::vector<int64_t> ended;
    for (uint64_t left = 1 + random.Next() % 8; left > 0; --left) {
      const Ids prompt = RandomIds(&random, 1 + static_cast<int64_t>(random.Next() % 50));
      const auto count = 1 + static_cast<int64_t>(random.Next() % 25);
      const int64_t id = f.Submit(prompt, count).value();
      want[id] = WindowOracle(prompt, count);
      for (uint64_t steps = random.Next() % 4; steps > 0; --steps) {
        REQUIRE(f.scheduler->Step().ok());
      }
      if (random.Next() % 5 == 0) {
        ended.push_back(1 + static_cast<int64_t>(random.Next() % static_cast<uint64_t>(id)));
        f.scheduler->Cancel(ended.back());
      }
    }
    f.Drain();
    REQUIRE(f.done.size() == want.size());
    for (const auto& [id, tokens] : want) {
      const Finished& finished = f.done.at(id);
      CHECK_FALSE(finished.error.has_value());
      if (finished.finish == FinishReason::kCancelled) {
        CHECK(std::count(ended.begin(), ended.end(), id) > 0);
        REQUIRE(finished.tokens.size() <= tokens.size());
        CHECK(std::equal(finished.tokens.begin(), finished.tokens.end(), tokens.begin()));
        ++cancelled;
      } else {
        CHECK(finished.tokens == tokens);
      }
    }
    CHECK(f.scheduler->cache().used_pages() == 0);
    CHECK(f.scheduler->stats().shared_tokens == 0);  // what is not kept is not shared
  }
  CHECK(cancelled > 20);
}

TEST_CASE("scheduler: with a window, a whole context needs the pages of a window") {
  SchedulerOptions options;
  options.context = kWindowContext;
  options.kv_bytes = kColumnBytes * static_cast<uint64_t>(2 * kColumns);
  Fixture f(options, 16, {}, WindowedKv());
  SplitMix64 random(2);
  for (int i = 0; i < 3; ++i) {
    auto request = Fixture::Make(RandomIds(&random, 40), 20);
    request.generate.ignore_eos = true;
    REQUIRE(f.Submit(std::move(request)).ok());
  }
  REQUIRE(f.scheduler->Step().ok());
  CHECK(f.scheduler->stats().running == 2);  // and not one, as 60 tokens would have it
  f.Drain();
  CHECK(f.done.size() == 3);
  CHECK(f.scheduler->stats().peak_used_pages <= 2 * kColumns * 4);
}

}  // namespace
}  // namespace fretsaw
