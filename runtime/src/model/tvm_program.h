// The step program of an artifact, run by TVM's Relax virtual machine.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include "artifact/manifest.h"
#include "base/result.h"
#include "model/program.h"

namespace fretsaw {

// Native code loaded and initialised, but not yet bound to weights.
class TvmCode {
 public:
  // `code` must have been verified against its digest.
  // Errors: kUnsupported (no TVM runtime), kIo, kCorrupt (not loadable, no such entry).
  static Result<TvmCode> Load(std::span<const uint8_t> code, const ProgramInfo& program);

  TvmCode(TvmCode&&) noexcept;
  TvmCode& operator=(TvmCode&&) noexcept;
  ~TvmCode();

  // Consumes the code. `weights` is the weights section and must outlive the program; the manifest
  // is copied from, not kept. Steps run on `threads` threads, the calling one included.
  Result<std::unique_ptr<Program>> Bind(const Manifest& manifest, std::span<const uint8_t> weights,
                                        int threads) &&;

  // The same for the code of an encoder with a pooling.
  Result<std::unique_ptr<EncodeProgram>> BindEncoder(const Manifest& manifest,
                                                     std::span<const uint8_t> weights,
                                                     int threads) &&;

 private:
  struct State;
  explicit TvmCode(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace fretsaw
