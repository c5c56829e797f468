// Scheduler with programs that read prompts in blocks, or whole: a request's tokens are those of
// its prompt read in one step, whatever the schedule.
#include <doctest/doctest.h>

#include <map>

#include "sampler/prng.h"
#include "sched/scheduler_fixture.h"

namespace fretsaw {
namespace {

using testing::FakeKv;
using testing::FakeModel;
using testing::Fixture;
using testing::Ids;
using testing::kColumnBytes;
using testing::kPage;
using testing::Oracle;
using testing::RandomIds;

constexpr int64_t kContext = 64;

// Random budgets, page limits, sharing, prompts and arrivals.
void Rounds(ChunkRule rule, int64_t least_budget, uint64_t seed) {
  SplitMix64 random(seed);
  for (int round = 0; round < 300; ++round) {
    SchedulerOptions options;
    options.max_batch_tokens = least_budget + static_cast<int64_t>(random.Next() % 20);
    options.max_sequences = 1 + static_cast<int64_t>(random.Next() % 12);
    options.kv_bytes = kColumnBytes * (16 + random.Next() % 40);  // 16: one whole context
    options.share_prefixes = random.Next() % 4 != 0;
    Fixture f(options, 80, rule);
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
      want[id.value()] = Oracle(prompt, count, kContext, f.model.program->block);
      for (uint64_t steps = random.Next() % 3; steps > 0; --steps)
        REQUIRE(f.scheduler->Step().ok());
      CHECK(f.model.program->last_tokens <= options.max_batch_tokens);
    }
    f.Drain();
    REQUIRE(f.done.size() == want.size());
    for (const auto& [id, tokens] : want) {
      CHECK_FALSE(f.done.at(id).error.has_value());
      CHECK(f.done.at(id).tokens == tokens);
    }
    CHECK(f.scheduler->cache().used_pages() == 0);
  }
}

TEST_CASE("scheduler: prompts are cut between blocks, whatever the schedule") {
  Rounds({kPage, false}, 2 * kPage, 7);
}

TEST_CASE("scheduler: prompts that may not be cut are read in one step, whatever the schedule") {
  Rounds({1, true}, 50, 8);
  Rounds({kPage, true}, 50, 9);
}

TEST_CASE("scheduler: the oldest prompt goes on in a step that decoding could fill") {
  for (const ChunkRule rule : {ChunkRule{kPage, false}, ChunkRule{kPage, true}}) {
    SchedulerOptions options;
    options.max_batch_tokens = 8;
    options.max_sequences = 20;
    options.share_prefixes = false;
    Fixture f(options, 80, rule);
    for (int32_t i = 0; i < 8; ++i) REQUIRE(f.Submit({i}, 60).ok());
    REQUIRE(f.scheduler->Step().ok());
    const int64_t id = f.Submit({1, 2, 3, 4, 5, 6, 7}, 1).value();
    // {4, 3} tokens of its own beside others' in the one case, all seven at once in the other.
    for (int i = 0; i < (rule.whole ? 1 : 2); ++i) REQUIRE(f.scheduler->Step().ok());
    CHECK(f.done.count(id) == 1);
  }
}

TEST_CASE("scheduler: full pages are shared between prompts cut at blocks") {
  SchedulerOptions options;
  Fixture f(options, 80, {kPage, false});
  SplitMix64 random(17);
  const Ids common = RandomIds(&random, 20);
  std::map<int64_t, Ids> want;
  for (int32_t i = 0; i < 6; ++i) {
    Ids prompt = common;
    prompt.push_back(i);
    want[f.Submit(prompt, 3).value()] = Oracle(prompt, 3, kContext, kPage);
  }
  f.Drain();
  for (const auto& [id, tokens] : want) CHECK(f.done.at(id).tokens == tokens);
  // 21 tokens less five pages would be one, which decoding would read otherwise: four pages.
  CHECK(f.scheduler->stats().shared_tokens == 5 * 16);
}

TEST_CASE("scheduler: prompts that may not be cut share nothing") {
  SchedulerOptions options;
  Fixture f(options, 80, {kPage, true});
  const Ids prompt(21, 5);
  for (int i = 0; i < 3; ++i) REQUIRE(f.Submit(prompt, 3).ok());
  f.Drain();
  CHECK(f.scheduler->stats().shared_tokens == 0);
  CHECK(f.done.at(3).tokens == Oracle(prompt, 3, kContext, 4096));
}

TEST_CASE("scheduler: what a chunk rule makes impossible is refused by name") {
  SchedulerOptions options;
  options.max_batch_tokens = 7;
  FakeModel model(8, {kPage, false});
  options.context = kContext;
  CHECK(Scheduler::Create(&model.stepper, FakeKv(), model.rules(), options).error().message ==
        "max-batch-tokens: 7 is impossible; attention of this artifact reads blocks of 4 tokens, "
        "and a step needs at least 8");
  options.max_batch_tokens = 20;
  Fixture f(options, 30, {kPage, true});
  CHECK(f.Submit(Ids(20, 1), 1).ok());
  const Error small = f.Submit(Ids(21, 1), 1).error();
  CHECK(small.status == Status::kPromptTooLong);
  CHECK(small.message ==
        "the prompt has 21 tokens; attention of this artifact reads a prompt in one step, which "
        "takes at most 20; shorten it, or raise max-batch-tokens to 21 or more");
  CHECK(f.Submit(Ids(31, 1), 1).error().message ==
        "the prompt has 31 tokens; attention of this artifact reads a prompt in one step, which "
        "takes at most 20; shorten it, or compile with --chunk 31 or more");
}

}  // namespace
}  // namespace fretsaw
