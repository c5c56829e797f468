// Brings the weights' pages into the process while the caller goes on.
#pragma once

#include <atomic>
#include <cstdint>
#include <span>
#include <thread>

namespace fretsaw {

// A thread that walks `bytes` (a read-only file mapping) and maps its pages in large slices.
// Without it the first prefill takes tens of thousands of page faults inside the kernels. Stops
// early when destroyed; the mapping must outlive it.
class Prefault {
 public:
  explicit Prefault(std::span<const uint8_t> bytes);
  Prefault(const Prefault&) = delete;
  Prefault& operator=(const Prefault&) = delete;
  ~Prefault();

 private:
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

}  // namespace fretsaw
