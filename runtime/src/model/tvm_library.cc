#include "model/tvm_library.h"

#include <dlfcn.h>
#include <tvm/ffi/c_api.h>
#include <tvm/ffi/container/array.h>
#include <tvm/ffi/function.h>
#include <tvm/ffi/string.h>

#include <cstdlib>
#include <mutex>
#include <string>
#include <vector>

namespace fretsaw {
namespace {

constexpr const char* kName = "libtvm_runtime.so";

// Folder of the library or program that holds `symbol`, with a slash.
std::string FolderOf(const void* symbol) {
  Dl_info info{};
  if (dladdr(symbol, &info) == 0 || info.dli_fname == nullptr) return {};
  const std::string path = info.dli_fname;
  const size_t slash = path.rfind('/');
  return slash == std::string::npos ? std::string() : path.substr(0, slash + 1);
}

// Places to look, in order. The plain name goes through this binary's search path; the folders
// serve where that path is not honoured (a sanitizer's dlopen looks from the sanitizer's library).
std::vector<std::string> Candidates() {
  if (const char* chosen = std::getenv("FRETSAW_TVM_RUNTIME")) return {chosen};
  const std::string ours = FolderOf(reinterpret_cast<const void*>(&OpenTvmRuntime));
  const std::string ffi = FolderOf(reinterpret_cast<const void*>(&TVMFFIFunctionGetGlobal));
  return {kName, ours + kName, ffi + kName, ffi + "../../tvm/lib/" + kName};
}

VoidResult Open() {
  // A worker bound to one core waits for whatever else runs there. Read by the library at load.
  setenv("TVM_BIND_THREADS", "0", /*overwrite=*/0);
  std::string why;
  for (const std::string& name : Candidates()) {
    // Global: artifact code and TVM's own modules resolve symbols in it by name.
    if (dlopen(name.c_str(), RTLD_NOW | RTLD_GLOBAL) != nullptr) return Ok{};
    const char* error = dlerror();
    if (why.empty()) why = error != nullptr ? error : name;
  }
  return Error{Status::kUnsupported,
               "cannot load TVM's runtime library: " + why +
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
