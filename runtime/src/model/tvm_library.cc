#include "model/tvm_library.h"

#include <dlfcn.h>
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
  // A worker bound to one core waits for whatever else runs there. Read by the library at load.
  setenv("TVM_BIND_THREADS", "0", /*overwrite=*/0);
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
  thread_local int configured = 0;
  if (configured == threads) return Ok{};
  // The pool takes its size from the length of this list of CPUs (its default is half of the
  // logical ones); the CPUs themselves do not matter, because threads are not bound to any: see
  // Open.
  constexpr int kShareAllCores = -3;
  try {
    ffi::Array<ffi::String> cpus;
    for (int i = 0; i < threads; ++i) cpus.push_back(ffi::String("0"));
    const auto configure = ffi::Function::GetGlobalRequired("runtime.config_threadpool");
    configure(kShareAllCores, threads, cpus);
  } catch (const std::exception& e) {
    return Error{Status::kInternal, std::string("cannot configure the thread pool: ") + e.what()};
  }
  configured = threads;
  return Ok{};
}

}  // namespace fretsaw
