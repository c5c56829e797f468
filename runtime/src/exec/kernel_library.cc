#include "exec/kernel_library.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <mutex>
#include <new>
#include <utility>
#include <vector>

#include "exec/thread_pool.h"
#include "model/code_file.h"

namespace fretsaw {
namespace {

static_assert(sizeof(KernelTensor) == 48 && offsetof(KernelTensor, ndim) == 16 &&
              offsetof(KernelTensor, code) == 20 && offsetof(KernelTensor, shape) == 24);
static_assert(sizeof(KernelArg) == 16 && offsetof(KernelArg, tensor) == 8);

constexpr size_t kCacheLine = 64;
constexpr size_t kMaxText = 4096;

thread_local ThreadPool* current_pool = nullptr;
thread_local std::string raised;

// Memory that kernels ask for inside a task, kept by its thread for the next kernel.
class Scratch {
 public:
  Scratch() = default;
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() {
    for (const Block& block : blocks_) std::free(block.data);
  }

  void* Take(uint64_t bytes) {
    Block* best = nullptr;
    for (Block& block : blocks_) {
      if (!block.taken && block.bytes >= bytes && (best == nullptr || block.bytes < best->bytes)) {
        best = &block;
      }
    }
    if (best == nullptr) best = Grow(bytes);
    if (best == nullptr) return nullptr;
    best->taken = true;
    return best->data;
  }

  void Give(const void* data) {
    for (Block& block : blocks_) {
      if (block.data == data) block.taken = false;
    }
  }

 private:
  struct Block {
    void* data;
    uint64_t bytes;
    bool taken;
  };

  // A new block, in the place of a free one that was too small.
  Block* Grow(uint64_t bytes) {
    if (bytes > (uint64_t{1} << 40)) return nullptr;
    const uint64_t whole =
        std::max<uint64_t>((bytes + kCacheLine - 1) / kCacheLine, 1) * kCacheLine;
    void* data = std::aligned_alloc(kCacheLine, whole);
    if (data == nullptr) return nullptr;
    const auto spare = std::ranges::find(blocks_, false, &Block::taken);
    if (spare != blocks_.end()) {
      std::free(spare->data);
      *spare = {data, whole, false};
      return &*spare;
    }
    blocks_.push_back({data, whole, false});
    return &blocks_.back();
  }

  std::vector<Block> blocks_;
};

thread_local Scratch scratch;

void Raise(const char* kind, const char** parts, int32_t count) {
  raised = kind != nullptr ? kind : "error";
  raised += ": ";
  for (int32_t i = 0; i < count && raised.size() < kMaxText; ++i) {
    if (parts[i] != nullptr) raised += parts[i];
  }
  raised.resize(std::min(raised.size(), kMaxText));
}

void* AllocWorkspace(int, int, uint64_t bytes, int, int) {
  void* data = scratch.Take(bytes);
  if (data == nullptr) raised = "a kernel found no memory for " + std::to_string(bytes) + " bytes";
  return data;
}

int FreeWorkspace(int, int, void* data) {
  scratch.Give(data);
  return 0;
}

struct ParallelEnv {
  void* sync;
  int32_t tasks;
};
using Lambda = int (*)(int id, ParallelEnv* env, void* data);

// One parallel loop of a kernel: tasks may fail on any thread, the text goes to who called.
struct Loop {
  Lambda lambda;
  void* data;
  std::mutex mutex;
  std::string error;
};

int RunTask(int id, int count, void* data) {
  auto* loop = static_cast<Loop*>(data);
  ParallelEnv env{nullptr, count};
  const int status = loop->lambda(id, &env, loop->data);
  if (status != 0) {
    const std::lock_guard lock(loop->mutex);
    loop->error = TakeKernelError();
  }
  return status;
}

int ParallelLaunch(Lambda lambda, void* data, int tasks) {
  Loop loop{lambda, data, {}, {}};
  int status = 0;
  if (current_pool == nullptr) {
    status = RunTask(0, 1, &loop);
  } else {
    const int count = tasks > 0 ? std::min(tasks, ThreadPool::kMaxTasks) : current_pool->threads();
    status = current_pool->Run(&RunTask, &loop, count);
  }
  if (status != 0) raised = loop.error;
  return status;
}

template <typename Function>
void Fill(void* handle, const char* name, Function* function) {
  if (auto* pointer = static_cast<Function**>(dlsym(handle, name))) *pointer = function;
}

}  // namespace

KernelLibrary::KernelLibrary(KernelLibrary&& other) noexcept
    : handle_(std::exchange(other.handle_, nullptr)) {}

KernelLibrary::~KernelLibrary() {
  if (handle_ != nullptr) dlclose(handle_);
}

Result<KernelLibrary> KernelLibrary::Open(std::span<const uint8_t> code) {
  auto file = CodeFile::Create(code);
  if (!file) return file.error();
  void* handle = dlopen(file.value().path().c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) {
    const char* why = dlerror();
    return Error{Status::kCorrupt, std::string("cannot load the artifact's code: ") +
                                       (why != nullptr ? why : "dlopen failed")};
  }
  Fill(handle, "__TVMBackendParallelLaunch", &ParallelLaunch);
  Fill(handle, "__TVMBackendAllocWorkspace", &AllocWorkspace);
  Fill(handle, "__TVMBackendFreeWorkspace", &FreeWorkspace);
  Fill(handle, "fretsaw_raise", &Raise);
  return KernelLibrary(handle);
}

Kernel KernelLibrary::Find(const std::string& name) const {
  return reinterpret_cast<Kernel>(dlsym(handle_, ("__tvm_ffi_" + name).c_str()));
}

KernelThreads::KernelThreads(ThreadPool* pool) { current_pool = pool; }
KernelThreads::~KernelThreads() { current_pool = nullptr; }

std::string TakeKernelError() { return std::exchange(raised, {}); }

}  // namespace fretsaw
