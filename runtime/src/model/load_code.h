// From an artifact to the code of one variant, checked and loaded.
#pragma once

#include <string>

#include "artifact/artifact.h"
#include "base/result.h"
#include "model/tvm_program.h"

namespace fretsaw {

struct LoadedCode {
  TvmCode code;
  std::string variant;
  int threads = 1;
};

// `threads` 0: one per physical core. `variant` empty: the best one that this machine runs. With
// `verify` the digest of every section is checked first, else that of the code alone.
// Errors: kUsage (threads, variant), kUnsupportedCpu, kCorrupt, kUnsupported, kIo.
Result<LoadedCode> LoadCode(const Artifact& artifact, bool verify, const std::string& variant,
                            int threads);

}  // namespace fretsaw
