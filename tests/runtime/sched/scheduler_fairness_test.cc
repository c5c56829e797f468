// More sequences decode than a step has tokens: turns go round, and nobody waits longer than that
// takes.
#include <doctest/doctest.h>

#include <algorithm>
#include <array>

#include "sched/scheduler_fixture.h"

namespace fretsaw {
namespace {

using testing::Fixture;

TEST_CASE("scheduler: who waited longest for a token is served first") {
  constexpr int64_t kTalkers = 7, kBudget = 4, kRound = 2;  // seven take two steps of four tokens
  SchedulerOptions options;
  options.max_batch_tokens = kBudget;
  options.max_sequences = kTalkers;
  Fixture f(options);
  std::array<int64_t, kTalkers> served = {};  // the step of the last token of each, 0 before any
  int64_t step = 0;
  for (size_t i = 0; i < served.size(); ++i) {
    auto talker = Fixture::Make({static_cast<int32_t>(i)}, 60);
    talker.generate.ignore_eos = true;
    talker.on_token = [&served, &step, i](int32_t, std::string_view) {
      served[i] = step;
      return true;
    };
    REQUIRE(f.Submit(std::move(talker)).ok());
  }
  const auto longest = [&] { return *std::min_element(served.begin(), served.end()); };
  while (longest() == 0) {  // prompts are read, a piece of each step
    ++step;
    REQUIRE(f.scheduler->Step().ok());
    REQUIRE(step < 20);
  }
  for (int i = 0; i < 20; ++i) {
    ++step;
    REQUIRE(f.scheduler->Step().ok());
    CHECK(f.model.program->last_tokens == kBudget);
    if (i >= kRound) CHECK(step - longest() < kRound);
  }
}

}  // namespace
}  // namespace fretsaw
