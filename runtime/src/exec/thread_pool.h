// Threads that share the tasks of one parallel loop after another.
//
// Tasks are claimed, not dealt: whoever is free takes the next one, the caller included. So a
// caller never waits for a thread that the system has not let run yet, and a loop on a busy machine
// takes as long as the threads that do run need for it. Between loops threads spin for some
// microseconds, the usual distance of two kernels of a step, and then sleep.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "base/result.h"

namespace fretsaw {

class ThreadPool {
 public:
  // task(id, count, data) for each id from 0 to count - 1; not 0 is an error.
  using Task = int (*)(int id, int count, void* data);

  static constexpr int kMaxTasks = 65535;

  // `threads`, from 1, counts the caller. Errors: kOutOfMemory (the system gives no more threads).
  static Result<std::unique_ptr<ThreadPool>> Create(int threads);
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;
  ~ThreadPool();

  int threads() const { return threads_; }

  // Runs all tasks and returns what the first of them to fail returned, or 0. One caller at a time.
  int Run(Task task, void* data, int count);

 private:
  explicit ThreadPool(int threads) : threads_(threads) {}

  void Work();
  // Runs tasks of the loop that is on until none is left; false where there was none.
  bool Help();

  // One word says which loop is on, how many tasks it has and which is next, so that a claim is one
  // exchange and cannot take a task of another loop: number of the loop << 32 | count << 16 | next.
  std::atomic<uint64_t> ticket_{0};
  // Of the loop that is on: written before its ticket, read only by who has claimed a task of it.
  Task task_ = nullptr;
  void* data_ = nullptr;
  std::atomic<int> status_{0};
  alignas(64) std::atomic<int> unfinished_{0};
  alignas(64) std::atomic<uint32_t> wakeups_{0};
  std::atomic<int> sleepers_{0};
  std::atomic<bool> ending_{false};
  int threads_;
  std::vector<std::thread> workers_;
};

}  // namespace fretsaw
