// The step program of an artifact, run: its launches in order, over one workspace.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>

#include "artifact/manifest.h"
#include "base/result.h"
#include "exec/kernel_library.h"
#include "exec/program_data.h"
#include "model/program.h"

namespace fretsaw {

// The program and kernels of one variant, read and checked, but not yet bound to weights.
class StepCode {
 public:
  // `program` is the text of the program section, `code` a code section; both must have been
  // verified against their digests. Errors: kCorrupt, kUnsupported, kIo, kOutOfMemory.
  static Result<StepCode> Load(std::string_view program, std::span<const uint8_t> code,
                               const Manifest& manifest);

  StepCode(StepCode&&) noexcept = default;
  StepCode& operator=(StepCode&&) = delete;

  // Consumes the code. `weights` is the weights section and must outlive the program; the manifest
  // is copied from, not kept. Steps run on `threads` threads, the calling one included.
  // Errors: kOutOfMemory (the system gives no more threads).
  Result<std::unique_ptr<Program>> Bind(const Manifest& manifest, std::span<const uint8_t> weights,
                                        int threads) &&;

  // The same for the code of an encoder with a pooling.
  Result<std::unique_ptr<EncodeProgram>> BindEncoder(const Manifest& manifest,
                                                     std::span<const uint8_t> weights,
                                                     int threads) &&;

 private:
  StepCode(ProgramData data, KernelLibrary library)
      : data_(std::move(data)), library_(std::move(library)) {}

  ProgramData data_;
  KernelLibrary library_;
};

}  // namespace fretsaw
