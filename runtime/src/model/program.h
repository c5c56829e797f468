// The compiled step program, as the rest of the runtime sees it: schedulers and caches are tested
// with a program written in the test. exec/ has the one that runs artifacts.
#pragma once

#include <cstdint>
#include <span>

#include "base/result.h"

namespace fretsaw {

// Arguments of one step (docs/artifact.md, "Program"). Everything is borrowed for the call.
struct StepArgs {
  std::span<const int32_t> tokens;     // [T]
  std::span<const int32_t> positions;  // [T]
  std::span<const int32_t> cu;         // [B + 1]
  std::span<const int32_t> rows;       // [R], indices into tokens
  std::span<const int32_t> lens;       // [L, B, K]
  std::span<const int32_t> table;      // [L, B, K, M], page numbers
  int64_t layers = 0, batch = 0, kv_heads = 0, max_pages = 0;
  std::span<void* const> planes;  // in the manifest's order, [pages, shape...], changed in place
  int64_t pages = 0;
  bool dense = false;  // the step is one of the manifest's dense ones (DenseSteps)
};

class Program {
 public:
  virtual ~Program() = default;

  // Runs one step; returns logits [R, V], valid until the next call.
  virtual Result<std::span<const float>> Step(const StepArgs& args) = 0;
};

// Arguments of one call of an encoder: whole texts one after another.
struct EncodeArgs {
  std::span<const int32_t> tokens;     // [T]
  std::span<const int32_t> positions;  // [T]
  std::span<const int32_t> cu;         // [B + 1], from 0 to T
};

class EncodeProgram {
 public:
  virtual ~EncodeProgram() = default;

  // Returns embeddings [B, D], valid until the next call.
  virtual Result<std::span<const float>> Encode(const EncodeArgs& args) = 0;
};

}  // namespace fretsaw
