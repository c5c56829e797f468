#include "exec/thread_pool.h"

#include <chrono>
#include <string>
#include <system_error>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace fretsaw {
namespace {

constexpr auto kSpin = std::chrono::microseconds(60);  // longer than from one kernel to the next
constexpr int kLooks = 64;                             // between two looks at the clock

constexpr uint64_t Loop(uint64_t ticket) { return ticket >> 32; }
constexpr uint64_t Count(uint64_t ticket) { return (ticket >> 16) & 0xffff; }
constexpr uint64_t Next(uint64_t ticket) { return ticket & 0xffff; }
constexpr bool Open(uint64_t ticket) { return Next(ticket) < Count(ticket); }

void Pause() {
#if defined(__x86_64__)
  _mm_pause();
#endif
}

// Whether `ready` came true within kSpin.
template <typename Ready>
bool SpinUntil(Ready ready) {
  const auto end = std::chrono::steady_clock::now() + kSpin;
  do {
    for (int i = 0; i < kLooks; ++i) {
      if (ready()) return true;
      Pause();
    }
  } while (std::chrono::steady_clock::now() < end);
  return false;
}

}  // namespace

Result<std::unique_ptr<ThreadPool>> ThreadPool::Create(int threads) {
  std::unique_ptr<ThreadPool> pool(new ThreadPool(threads));
  try {
    for (int i = 1; i < threads; ++i) {
      pool->workers_.emplace_back([raw = pool.get()] { raw->Work(); });
    }
  } catch (const std::system_error& e) {
    return Error{Status::kOutOfMemory,
                 "the system gives no " + std::to_string(threads) + " threads (" + e.what() +
                     "); ask for fewer, or raise its limit (ulimit -u, pids.max)"};
  }
  return pool;
}

ThreadPool::~ThreadPool() {
  ending_.store(true);
  wakeups_.fetch_add(1);
  wakeups_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

int ThreadPool::Run(Task task, void* data, int count) {
  if (count <= 1 || threads_ == 1) {
    int status = 0;
    for (int i = 0; i < count; ++i) {
      const int result = task(i, count, data);
      if (status == 0) status = result;
    }
    return status;
  }
  task_ = task;
  data_ = data;
  status_.store(0, std::memory_order_relaxed);
  unfinished_.store(count, std::memory_order_relaxed);
  const uint64_t loop = Loop(ticket_.load(std::memory_order_relaxed)) + 1;
  // Sequentially consistent with the count of sleepers: either this thread sees one, or that one
  // sees the ticket before it sleeps.
  ticket_.store(loop << 32 | static_cast<uint64_t>(count) << 16);
  if (sleepers_.load() > 0) {
    wakeups_.fetch_add(1);
    wakeups_.notify_all();
  }
  Help();
  // Only tasks that another thread has begun are left.
  const auto done = [this] { return unfinished_.load(std::memory_order_acquire) == 0; };
  if (!SpinUntil(done)) {
    for (int left = unfinished_.load(std::memory_order_acquire); left != 0;
         left = unfinished_.load(std::memory_order_acquire)) {
      unfinished_.wait(left, std::memory_order_acquire);
    }
  }
  return status_.load(std::memory_order_relaxed);
}

bool ThreadPool::Help() {
  bool any = false;
  uint64_t ticket = ticket_.load(std::memory_order_acquire);
  while (Open(ticket)) {
    if (!ticket_.compare_exchange_weak(ticket, ticket + 1, std::memory_order_acq_rel,
                                       std::memory_order_acquire)) {
      continue;
    }
    any = true;
    const int result =
        task_(static_cast<int>(Next(ticket)), static_cast<int>(Count(ticket)), data_);
    if (result != 0) {
      int none = 0;
      status_.compare_exchange_strong(none, result, std::memory_order_relaxed);
    }
    if (unfinished_.fetch_sub(1, std::memory_order_acq_rel) == 1) unfinished_.notify_one();
    ticket = ticket_.load(std::memory_order_acquire);
  }
  return any;
}

void ThreadPool::Work() {
  while (!ending_.load(std::memory_order_relaxed)) {
    if (Help()) continue;
    const auto wanted = [this] {
      return Open(ticket_.load(std::memory_order_relaxed)) ||
             ending_.load(std::memory_order_relaxed);
    };
    if (SpinUntil(wanted)) continue;
    const uint32_t before = wakeups_.load();
    sleepers_.fetch_add(1);
    if (!Open(ticket_.load()) && !ending_.load()) wakeups_.wait(before);
    sleepers_.fetch_sub(1);
  }
}

}  // namespace fretsaw
