// A scheduler over the program in closed form, and what became of its requests.
#pragma once

#include <doctest/doctest.h>

#include <cstdint>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "sampler/prng.h"
#include "sched/fake_program.h"
#include "sched/scheduler.h"

namespace fretsaw::testing {

using Ids = std::vector<int32_t>;

// Of one page in every row: rows, page tokens, key and value, f32.
inline constexpr uint64_t kColumnBytes = 4 * 4 * 2 * 4;

struct Fixture {
  explicit Fixture(SchedulerOptions options = {}, int64_t chunk = 16, ChunkRule rule = {},
                   const KvInfo& kv = FakeKv())
      : model(chunk, rule) {
    if (options.context == 0) options.context = 64;
    auto created = Scheduler::Create(&model.stepper, kv, model.rules(), options);
    REQUIRE(created.ok());
    scheduler = std::move(created).value();
  }

  Result<int64_t> Submit(Ids prompt, int64_t count, SamplingOptions sampling = {}) {
    return Submit(Make(std::move(prompt), count, sampling));
  }
  Result<int64_t> Submit(ScheduledRequest request) {
    request.on_finish = [this](Finished&& finished) {
      const int64_t id = finished.id;
      CHECK(done.emplace(id, std::move(finished)).second);
    };
    return scheduler->Submit(std::move(request));
  }
  static ScheduledRequest Make(Ids prompt, int64_t count, SamplingOptions sampling = {}) {
    ScheduledRequest request;
    request.generate.prompt = std::move(prompt);
    request.generate.max_new_tokens = count;
    request.generate.sampling = sampling;
    return request;
  }
  void Drain() {
    for (;;) {
      auto stepped = scheduler->Step();
      REQUIRE(stepped.ok());
      if (!stepped.value()) return;
    }
  }

  FakeModel model;
  std::unique_ptr<Scheduler> scheduler;
  std::map<int64_t, Finished> done;
};

inline Ids RandomIds(SplitMix64* random, int64_t count) {
  Ids ids(static_cast<size_t>(count));
  for (int32_t& id : ids) id = static_cast<int32_t>(random->Next() % kVocab);
  return ids;
}

}  // namespace fretsaw::testing
