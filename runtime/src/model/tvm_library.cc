#include "model/tvm_library.h"

#include <dlfcn.h>
#include <sched.h>
#include <tvm/ffi/container/array.h>
#include <tvm/ffi/function.h>
#include <tvm/ffi/string.h>

#include <cstdlib>
#include <mutex>
#include <string>

namespace fretsaw {
namespace {

VoidResult Open() {
  const char* chosen = std::getenv("FRETSAW_TVM_RUNTIME");
  const char* name = chosen != nullptr ? chosen : "libtvm_runtime.so";
  // Global: artifact code and TVM's own modules resolve symbols in it by name.
  if (dlopen(name, RTLD_NOW | RTLD_GLOBAL) != nullptr) return Ok{};
  const char* why = dlerror();
  return Error{Status::kUnsupported,
               std::string("cannot load TVM's runtime library: ") + (why ? why : name) +
                   "; put libtvm_runtime.so beside this program or set FRETSAW_TVM_RUNTIME"};
}

}  // namespace

VoidResult OpenTvmRuntime() {
  static std::mutex mutex;
  static bool opened = false;
  const std::lock_guard lock(mutex);
  if (opened) return Ok{};
  auto result = Open();
  opened = result.ok();
  return result;
}

VoidResult ConfigureTvmThreads(int threads) {
  namespace ffi = tvm::ffi;
  // "Share all cores": every worker may run on any CPU we may use. Pinning a worker to one core is
  // slower as soon as anything else runs there. The pool takes its size from the length of the
  // list, so CPUs repeat when there are more threads than CPUs.
  constexpr int kShareAllCores = -3;
  cpu_set_t mask;
  CPU_ZERO(&mask);
  if (sched_getaffinity(0, sizeof mask, &mask) != 0) CPU_SET(0, &mask);
  try {
    ffi::Array<ffi::String> cpus;
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (CPU_ISSET(cpu, &mask)) cpus.push_back(ffi::String(std::to_string(cpu)));
    }
    const auto distinct = static_cast<int64_t>(cpus.size());
    for (int64_t i = 0; distinct + i < threads; ++i) cpus.push_back(cpus[i % distinct]);
    const auto configure = ffi::Function::GetGlobalRequired("runtime.config_threadpool");
    configure(kShareAllCores, threads, cpus);
    return Ok{};
  } catch (const std::exception& e) {
    return Error{Status::kInternal, std::string("cannot configure the thread pool: ") + e.what()};
  }
}

}  // namespace fretsaw
