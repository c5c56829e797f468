// The thread pool: every task once, from any thread, with threads that sleep in between; errors;
// and that a caller does not wait for threads that do not run.
#include "exec/thread_pool.h"

#include <doctest/doctest.h>
#include <sched.h>

#include <atomic>
#include <chrono>
#include <numeric>
#include <thread>
#include <vector>

namespace fretsaw {
namespace {

using Counts = std::vector<std::atomic<int>>;

int CountTask(int id, int count, void* data) {
  auto& counts = *static_cast<Counts*>(data);
  CHECK(count == static_cast<int>(counts.size()));
  counts[static_cast<size_t>(id)].fetch_add(1, std::memory_order_relaxed);
  return 0;
}

std::unique_ptr<ThreadPool> Pool(int threads) {
  auto pool = ThreadPool::Create(threads);
  REQUIRE(pool.ok());
  return std::move(pool).value();
}

TEST_CASE("every task runs once, in loops of any size") {
  for (const int threads : {1, 2, 3, 8}) {
    const auto pool = Pool(threads);
    for (const int count : {0, 1, 2, 3, 7, 64, 1000}) {
      for (int round = 0; round < 20; ++round) {
        Counts counts(static_cast<size_t>(count));
        CHECK(pool->Run(&CountTask, &counts, count) == 0);
        for (const auto& n : counts) CHECK(n.load() == 1);
      }
    }
  }
}

TEST_CASE("threads that went to sleep wake up") {
  const auto pool = Pool(3);
  for (int round = 0; round < 30; ++round) {
    std::this_thread::sleep_for(std::chrono::microseconds(round % 3 == 0 ? 2000 : 70));
    Counts counts(3);
    CHECK(pool->Run(&CountTask, &counts, 3) == 0);
    for (const auto& n : counts) CHECK(n.load() == 1);
  }
}

TEST_CASE("loops may come from different threads, one after another") {
  const auto pool = Pool(2);
  for (int i = 0; i < 20; ++i) {
    std::thread([&pool] {
      Counts counts(5);
      CHECK(pool->Run(&CountTask, &counts, 5) == 0);
      for (const auto& n : counts) CHECK(n.load() == 1);
    }).join();
  }
}

TEST_CASE("a task that fails is told, and the others run") {
  const auto pool = Pool(2);
  struct Data {
    std::atomic<int> ran{0};
  } data;
  const auto fail = [](int id, int, void* raw) {
    static_cast<Data*>(raw)->ran.fetch_add(1);
    return id == 3 ? -7 : 0;
  };
  CHECK(pool->Run(fail, &data, 6) == -7);
  CHECK(data.ran.load() == 6);
  Counts counts(4);
  CHECK(pool->Run(&CountTask, &counts, 4) == 0);
}

TEST_CASE("many short loops, with results that later ones read") {
  const auto pool = Pool(4);
  std::vector<int64_t> data(64, 1);
  const auto twice = [](int id, int count, void* raw) {
    auto& values = *static_cast<std::vector<int64_t>*>(raw);
    for (size_t i = static_cast<size_t>(id); i < values.size(); i += static_cast<size_t>(count)) {
      values[i] = values[i] * 2 % 1000003;
    }
    return 0;
  };
  int64_t want = 1;
  for (int round = 0; round < 20000; ++round) {
    pool->Run(twice, &data, 4);
    want = want * 2 % 1000003;
  }
  for (const int64_t value : data) CHECK(value == want);
}

// Keeps this thread, and threads that it starts, on one core.
struct OneCore {
  OneCore() {
    sched_getaffinity(0, sizeof before, &before);
    cpu_set_t one;
    CPU_ZERO(&one);
    for (int i = 0; i < CPU_SETSIZE; ++i) {
      if (CPU_ISSET(i, &before)) {
        CPU_SET(i, &one);
        break;
      }
    }
    sched_setaffinity(0, sizeof one, &one);
  }
  ~OneCore() { sched_setaffinity(0, sizeof before, &before); }
  cpu_set_t before;
};

double Seconds(ThreadPool* pool, int rounds) {
  const auto started = std::chrono::steady_clock::now();
  Counts counts(2);
  for (int i = 0; i < rounds; ++i) pool->Run(&CountTask, &counts, 2);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
}

// Were tasks dealt, each loop would wait until the system lets the other thread run: milliseconds.
TEST_CASE("two threads on one core do not wait for each other's turn") {
  const OneCore one;
  const auto pool = Pool(2);
  constexpr int kRounds = 1000;
  CHECK(Seconds(pool.get(), kRounds) < 1e-3 * kRounds);
}

}  // namespace
}  // namespace fretsaw
