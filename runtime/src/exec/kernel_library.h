// The code section of a variant, opened: kernels by name, called through their C interface.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "base/result.h"

namespace fretsaw {

class ThreadPool;

// The parts of DLPack and of tvm-ffi's C interface that a kernel call has. Both are stable by
// promise; sizes and offsets are asserted in the source.
struct KernelTensor {
  void* data = nullptr;
  int32_t device_type = 1;  // CPU
  int32_t device_id = 0;
  int32_t ndim = 0;
  uint8_t code = 2;  // 0 signed, 1 unsigned, 2 float
  uint8_t bits = 32;
  uint16_t lanes = 1;
  int64_t* shape = nullptr;
  int64_t* strides = nullptr;  // null: row by row without gaps
  uint64_t byte_offset = 0;
};

struct KernelArg {
  int32_t type = 0;
  uint32_t padding = 0;
  union {
    int64_t integer = 0;
    KernelTensor* tensor;
  };

  static KernelArg Integer(int64_t value) {
    KernelArg arg;
    arg.type = 1;
    arg.integer = value;
    return arg;
  }
  static KernelArg Tensor(KernelTensor* value) {
    KernelArg arg;
    arg.type = 7;
    arg.tensor = value;
    return arg;
  }
};

using Kernel = int32_t (*)(void* handle, const KernelArg* args, int32_t count, KernelArg* result);

class KernelLibrary {
 public:
  // `code` must have been verified against its digest. Errors: kIo, kCorrupt (cannot be opened).
  static Result<KernelLibrary> Open(std::span<const uint8_t> code);
  KernelLibrary(KernelLibrary&& other) noexcept;
  KernelLibrary& operator=(KernelLibrary&&) = delete;
  KernelLibrary(const KernelLibrary&) = delete;
  ~KernelLibrary();

  // Null where there is none.
  Kernel Find(const std::string& name) const;

 private:
  explicit KernelLibrary(void* handle) : handle_(handle) {}

  void* handle_;
};

// While it lives, parallel loops of kernels that this thread calls run on `pool`.
class KernelThreads {
 public:
  explicit KernelThreads(ThreadPool* pool);
  KernelThreads(const KernelThreads&) = delete;
  KernelThreads& operator=(const KernelThreads&) = delete;
  ~KernelThreads();
};

// What the last kernel that failed on this thread said, taken away; empty where it said nothing.
std::string TakeKernelError();

}  // namespace fretsaw
