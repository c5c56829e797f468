// A loaded model: artifact, native code on this machine's best variant, weights in place.
#pragma once

#include <memory>
#include <string>

#include "artifact/artifact.h"
#include "base/result.h"
#include "model/prefault.h"
#include "model/stepper.h"

namespace fretsaw {

struct ModelOptions {
  int threads = 0;      // 0: one per physical core
  std::string variant;  // empty: the best one that this machine runs
  bool verify = false;  // check the digest of every section first
};

class Model {
 public:
  // Takes the artifact over. Checks the digest of the code it loads; weights are not copied.
  // Errors: kUsage (threads, variant), kUnsupportedCpu, kCorrupt, kUnsupported, kIo.
  static Result<std::unique_ptr<Model>> Load(Artifact artifact, const ModelOptions& options);
  // What to say when the artifact holds something else.
  static Error NoDecoder(const Manifest& manifest);

  const Artifact& artifact() const { return artifact_; }
  const Manifest& manifest() const { return artifact_.manifest(); }
  const std::string& variant() const { return variant_; }
  int threads() const { return threads_; }
  Stepper& stepper() { return *stepper_; }

 private:
  explicit Model(Artifact artifact) : artifact_(std::move(artifact)) {}

  Artifact artifact_;
  std::string variant_;
  int threads_ = 1;
  std::unique_ptr<Stepper> stepper_;
  std::unique_ptr<Prefault> prefault_;
};

}  // namespace fretsaw
