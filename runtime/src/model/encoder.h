// A loaded encoder: texts or token ids in, one vector for each out.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "artifact/artifact.h"
#include "base/result.h"
#include "model/model.h"
#include "model/prefault.h"
#include "model/program.h"

namespace fretsaw {

// Lays texts out one after another, as many as a step takes, so no token is padding. Not
// thread-safe.
class Encoder {
 public:
  // Errors: kUnsupported (no encoder, no pooling), those of LoadCode.
  static Result<std::unique_ptr<Encoder>> Load(Artifact artifact, const ModelOptions& options);

  // What to say when the artifact holds something else.
  static Error NoEncoder(const Manifest& manifest);

  // For tests: `program` takes steps of `chunk_tokens`.
  Encoder(const Manifest& manifest, std::unique_ptr<EncodeProgram> program);

  // One vector of width() numbers per sequence, appended to `out`. Errors: kBadInput (an id outside
  // the vocabulary), kPromptTooLong (over context() tokens); `out` is then as it was.
  VoidResult Embed(std::span<const std::vector<int32_t>> sequences, std::vector<float>* out);

  int64_t width() const { return width_; }
  int64_t context() const { return context_; }
  int64_t chunk_tokens() const { return chunk_tokens_; }
  const std::string& variant() const { return variant_; }
  int threads() const { return threads_; }
  const Artifact& artifact() const { return *artifact_; }

 private:
  VoidResult Check(std::span<const int32_t> sequence) const;
  VoidResult Step(std::vector<float>* out);

  std::unique_ptr<Artifact> artifact_;
  int64_t width_, context_, vocab_size_, chunk_tokens_;
  std::string variant_;
  int threads_ = 1;
  std::unique_ptr<EncodeProgram> program_;
  std::unique_ptr<Prefault> prefault_;
  std::vector<int32_t> tokens_, positions_, cu_;  // of the step being filled
};

}  // namespace fretsaw
