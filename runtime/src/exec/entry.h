// One entry of a step program, bound to kernels, weights and places for everything that changes
// from step to step. A step fills these in and walks the launches; it allocates nothing.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "artifact/manifest.h"
#include "base/result.h"
#include "exec/kernel_library.h"
#include "exec/program_data.h"

namespace fretsaw {

// Memory of a step, at a multiple of 64 bytes; grows when a step needs more and never shrinks.
class Workspace {
 public:
  // Errors: kOutOfMemory.
  VoidResult Reserve(int64_t bytes);
  uint8_t* data() const { return data_.get(); }

 private:
  struct Free {
    void operator()(uint8_t* data) const;
  };

  std::unique_ptr<uint8_t, Free> data_;
  int64_t bytes_ = 0;
};

class Entry {
 public:
  // The tensors of a program's weights, in the order of the manifest.
  static std::vector<KernelTensor> Weights(const std::vector<TensorInfo>& infos,
                                           std::span<const uint8_t> weights);

  // An argument of the cache: name, type and rank.
  struct CacheArray {
    std::string name;
    DType dtype = DType::kI32;
    int32_t rank = 0;
  };

  // `data` has been verified; `weights` and `cache` as the launches' arguments count and name them.
  // All of them must outlive the entry. Errors: kCorrupt (a kernel that the library lacks).
  static Result<std::unique_ptr<Entry>> Create(const EntryData& data, const KernelLibrary& library,
                                               std::span<KernelTensor> weights,
                                               std::span<const CacheArray> cache);

  // Values of symbols by name; those that the entry does not use are passed over.
  void SetSymbol(std::string_view name, int64_t value);
  // The input of this name; passed over where the entry does not read it.
  void SetInput(std::string_view name, const void* data, int64_t size);
  // Of shape `first`, then `rest`.
  void SetCache(size_t index, const void* data, std::initializer_list<int64_t> first,
                std::span<const int64_t> rest = {});

  // Runs the launches. Returns the output, [rows, columns]. Errors: kInternal (a kernel refuses its
  // arguments), kOutOfMemory.
  Result<std::span<const float>> Run(Workspace* workspace, int64_t rows, int64_t columns,
                                     const char* what);

 private:
  explicit Entry(const EntryData& data) : data_(data) {}

  struct Launch {
    Kernel kernel;
    std::vector<KernelArg> args;
  };

  VoidResult Place(Workspace* workspace);

  const EntryData& data_;
  std::vector<int64_t> symbols_;
  std::vector<std::vector<int64_t>> shapes_;  // of values
  std::vector<KernelTensor> values_;
  std::vector<std::vector<int64_t>> cache_shapes_;
  std::vector<KernelTensor> cache_;
  std::vector<int64_t> offsets_;  // of slots in the workspace
  std::vector<Launch> launches_;
};

}  // namespace fretsaw
