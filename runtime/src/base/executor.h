// A thread that runs one piece of work at a time for whoever calls.
//
// Kernels keep their scratch memory by thread. A model that runs on one thread of its own has one
// such memory, from however many threads its user calls.
#pragma once

#include <condition_variable>
#include <exception>
#include <functional>
#include <mutex>
#include <optional>
#include <thread>
#include <type_traits>
#include <utility>

namespace fretsaw {

class Executor {
 public:
  Executor() : thread_([this] { Loop(); }) {}
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  ~Executor() {
    Submit(nullptr);
    thread_.join();
  }

  // Runs `work` on the thread, waits, and returns what it returns; what it throws is thrown here.
  // One caller at a time; not from the thread itself.
  template <typename Work>
  std::invoke_result_t<Work> Run(Work work) {
    std::optional<std::invoke_result_t<Work>> result;
    std::exception_ptr thrown;
    const std::function<void()> task = [&] {
      try {
        result.emplace(work());
      } catch (...) {
        thrown = std::current_exception();
      }
    };
    Submit(&task);
    if (thrown) std::rethrow_exception(thrown);
    return std::move(*result);
  }

 private:
  // A null task ends the thread.
  void Submit(const std::function<void()>* task) {
    std::unique_lock lock(mutex_);
    task_ = task;
    waiting_ = true;
    changed_.notify_all();
    changed_.wait(lock, [this] { return !waiting_; });
  }

  void Loop() {
    for (bool running = true; running;) {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return waiting_; });
      running = task_ != nullptr;
      if (running) {
        lock.unlock();
        (*task_)();
        lock.lock();
      }
      waiting_ = false;
      changed_.notify_all();
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  const std::function<void()>* task_ = nullptr;
  bool waiting_ = false;
  std::thread thread_;  // last: starts when the rest exists
};

}  // namespace fretsaw
