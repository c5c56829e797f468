// From an artifact to the code of one variant, checked and loaded.
#pragma once

#include <string>

#include "artifact/artifact.h"
#include "base/result.h"
#include "exec/step_program.h"

namespace fretsaw {

struct LoadedCode {
  StepCode code;
  std::string variant;
  int threads = 1;
};

// `threads` 0: one per physical core. `variant` empty: the best one that this machine runs. With
// `verify` the digest of every section is checked first, else those of program and code alone.
// Errors: kUsage (threads, variant), kUnsupportedCpu, kCorrupt, kUnsupported, kIo.
Result<LoadedCode> LoadCode(const Artifact& artifact, bool verify, const std::string& variant,
                            int threads);

}  // namespace fretsaw
