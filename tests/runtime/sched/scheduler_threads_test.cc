// Scheduler: clients on several threads submit and cancel while one thread steps. Meant for a build
// with FRETSAW_TSAN as much as for its checks.
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <string_view>
#include <thread>

#include "sampler/prng.h"
#include "sched/fake_program.h"
#include "sched/scheduler.h"

namespace fretsaw {
namespace {

using testing::FakeKv;
using testing::FakeModel;
using testing::Oracle;
using Ids = std::vector<int32_t>;

struct Clients {
  Clients() {
    SchedulerOptions options;
    options.context = 64;
    options.max_sequences = 4;
    options.max_queue = 6;
    options.max_batch_tokens = 12;
    scheduler =
        std::move(Scheduler::Create(&model.stepper, FakeKv(), model.rules(), options).value());
  }

  // Submits requests, some of which it cancels, and remembers what must come of them.
  void Client(uint64_t seed, int64_t requests) {
    SplitMix64 random(seed);
    for (int64_t i = 0; i < requests;) {
      ScheduledRequest request;
      const Ids prompt(1 + random.Next() % 20, static_cast<int32_t>(random.Next() % 90));
      const auto count = 1 + static_cast<int64_t>(random.Next() % 12);
      const bool cancel = random.Next() % 5 == 0;
      const bool stop_reading = random.Next() % 7 == 0;
      request.generate.prompt = prompt;
      request.generate.max_new_tokens = count;
      request.on_token = [stop_reading](int32_t, std::string_view) { return !stop_reading; };
      request.on_finish = [this, prompt, count, whole = !cancel && !stop_reading](Finished&& f) {
        ++finished;
        const Ids want = Oracle(prompt, count, 64);
        const bool prefix = f.tokens.size() <= want.size() &&
                            std::equal(f.tokens.begin(), f.tokens.end(), want.begin());
        if (!prefix || (whole && f.tokens != want) || f.error) ++wrong;
      };
      auto id = scheduler->Submit(std::move(request));
      if (!id) {
        if (id.error().status != Status::kBusy) ++wrong;
        ++busy;
        std::this_thread::yield();
        continue;
      }
      if (cancel) scheduler->Cancel(id.value());
      ++accepted;
      ++i;
    }
    --clients;
  }

  FakeModel model;
  std::unique_ptr<Scheduler> scheduler;
  std::atomic<int64_t> accepted{0}, finished{0}, wrong{0}, busy{0}, clients{0};
};

TEST_CASE("scheduler: clients on several threads") {
  constexpr int kClients = 4, kRequests = 300;
  Clients c;
  c.clients = kClients;
  std::vector<std::thread> threads;
  for (int i = 0; i < kClients; ++i) {
    threads.emplace_back([&c, i] { c.Client(static_cast<uint64_t>(i), kRequests); });
  }
  for (bool worked = true; worked || c.clients > 0;) {
    auto stepped = c.scheduler->Step();
    REQUIRE(stepped.ok());
    worked = stepped.value();
  }
  for (std::thread& thread : threads) thread.join();
  while (c.scheduler->Step().value()) {
  }
  CHECK(c.accepted == kClients * kRequests);
  CHECK(c.finished == kClients * kRequests);
  CHECK(c.wrong == 0);
  CHECK(c.busy > 0);
  CHECK(c.scheduler->cache().used_pages() == 0);
}

}  // namespace
}  // namespace fretsaw
