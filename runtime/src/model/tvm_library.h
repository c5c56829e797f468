// Finding and configuring TVM's runtime library, which artifact code runs on.
#pragma once

#include "base/result.h"

namespace fretsaw {

// Opens libtvm_runtime.so once for the process: the file named by FRETSAW_TVM_RUNTIME, or through
// the search path of this binary. Errors: kUnsupported (not found, with the linker's words).
VoidResult OpenTvmRuntime();

// Makes the calling thread's TVM thread pool run `threads` threads (the caller is one of them).
// TVM keeps one pool per calling thread: call this and the program on the same thread.
VoidResult ConfigureTvmThreads(int threads);

}  // namespace fretsaw
