#include "model/prefault.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>

#ifndef MADV_POPULATE_READ  // Linux 5.14; older C libraries lack the name
#define MADV_POPULATE_READ 22
#endif

namespace fretsaw {

Prefault::Prefault(std::span<const uint8_t> bytes) {
  if (bytes.empty()) return;
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  const auto start = reinterpret_cast<uintptr_t>(bytes.data()) / page * page;
  const auto end = reinterpret_cast<uintptr_t>(bytes.data()) + bytes.size();
  madvise(reinterpret_cast<void*>(start), end - start, MADV_WILLNEED);
  thread_ = std::thread([this, start, end] {
    constexpr uintptr_t kSlice = uintptr_t{8} << 20;  // small enough to stop quickly
    for (uintptr_t at = start; at < end && !stop_.load(std::memory_order_relaxed); at += kSlice) {
      const size_t size = std::min(kSlice, end - at);
      // An old kernel refuses; WILLNEED above then has to do.
      if (madvise(reinterpret_cast<void*>(at), size, MADV_POPULATE_READ) != 0) return;
    }
  });
}

Prefault::~Prefault() {
  stop_.store(true, std::memory_order_relaxed);
  if (thread_.joinable()) thread_.join();
}

}  // namespace fretsaw
