#include "exec/entry.h"

#include <algorithm>
#include <cstdlib>
#include <optional>
#include <tuple>
#include <utility>

namespace fretsaw {
namespace {

constexpr int64_t kSlotAlignment = 64;
constexpr int64_t kMaxWorkspace = int64_t{1}
                                  << 46;  // bytes; sums of slots below it do not overflow

KernelTensor TensorOf(std::vector<int64_t>* shape, uint8_t code, uint8_t bits) {
  KernelTensor tensor;
  tensor.ndim = static_cast<int32_t>(shape->size());
  tensor.code = code;
  tensor.bits = bits;
  tensor.shape = shape->data();
  return tensor;
}

std::pair<uint8_t, uint8_t> CodeAndBits(ValueType type) {
  const auto bits = static_cast<uint8_t>(ValueTypeBytes(type) * 8);
  const bool is_float = type == ValueType::kF32 || type == ValueType::kF16;
  return {is_float ? uint8_t{2} : uint8_t{0}, bits};
}

// bf16 is handed over as its bits: kernels widen them themselves.
std::pair<uint8_t, uint8_t> CodeAndBits(DType type) {
  switch (type) {
    case DType::kF32:
      return {2, 32};
    case DType::kF16:
      return {2, 16};
    case DType::kBF16:
      return {1, 16};
    case DType::kI8:
      return {0, 8};
    case DType::kI32:
      return {0, 32};
    case DType::kI64:
      return {0, 64};
  }
  return {2, 32};
}

}  // namespace

void Workspace::Free::operator()(uint8_t* data) const { std::free(data); }

VoidResult Workspace::Reserve(int64_t bytes) {
  if (bytes <= bytes_) return Ok{};
  data_.reset();
  bytes_ = 0;
  data_.reset(static_cast<uint8_t*>(std::aligned_alloc(
      kSlotAlignment,
      static_cast<size_t>((bytes + kSlotAlignment - 1) / kSlotAlignment) * kSlotAlignment)));
  if (data_ == nullptr) {
    return Error{Status::kOutOfMemory,
                 "no memory for the " + std::to_string(bytes) + " bytes that a step works in"};
  }
  bytes_ = bytes;
  return Ok{};
}

std::vector<KernelTensor> Entry::Weights(const std::vector<TensorInfo>& infos,
                                         std::span<const uint8_t> weights) {
  std::vector<KernelTensor> tensors;
  tensors.reserve(infos.size());
  for (const TensorInfo& info : infos) {
    KernelTensor tensor;
    tensor.data = const_cast<uint8_t*>(weights.data() + info.offset);
    tensor.ndim = static_cast<int32_t>(info.shape.size());
    std::tie(tensor.code, tensor.bits) = CodeAndBits(info.dtype);
    tensor.shape = const_cast<int64_t*>(info.shape.data());
    tensors.push_back(tensor);
  }
  return tensors;
}

Result<std::unique_ptr<Entry>> Entry::Create(const EntryData& data, const KernelLibrary& library,
                                             std::span<KernelTensor> weights,
                                             std::span<const CacheArray> cache) {
  std::unique_ptr<Entry> entry(new Entry(data));
  entry->symbols_.assign(data.symbols.size(), 0);
  entry->offsets_.assign(data.slots.size(), 0);
  entry->shapes_.reserve(data.values.size());
  for (const ValueData& value : data.values) {
    const auto [code, bits] = CodeAndBits(value.type);
    entry->shapes_.emplace_back(value.shape.size(), 0);
    entry->values_.push_back(TensorOf(&entry->shapes_.back(), code, bits));
  }
  entry->cache_shapes_.reserve(cache.size());
  for (const CacheArray& array : cache) {
    entry->cache_shapes_.emplace_back(array.rank, 0);
    const auto [code, bits] = CodeAndBits(array.dtype);
    entry->cache_.push_back(TensorOf(&entry->cache_shapes_.back(), code, bits));
  }
  for (const LaunchData& launch : data.launches) {
    Launch bound{library.Find(launch.kernel), {}};
    if (bound.kernel == nullptr) {
      return Error{Status::kCorrupt, "corrupt artifact: program: entry '" + data.name +
                                         "': the code has no kernel '" + launch.kernel + "'"};
    }
    for (const ArgData& arg : launch.args) {
      switch (arg.kind) {
        case ArgData::Kind::kValue:
          bound.args.push_back(KernelArg::Tensor(&entry->values_[static_cast<size_t>(arg.number)]));
          break;
        case ArgData::Kind::kTensor:
          bound.args.push_back(KernelArg::Tensor(&weights[static_cast<size_t>(arg.number)]));
          break;
        case ArgData::Kind::kCache: {
          const auto found = std::ranges::find(cache, arg.cache, &CacheArray::name);
          bound.args.push_back(
              KernelArg::Tensor(&entry->cache_[static_cast<size_t>(found - cache.begin())]));
          break;
        }
        case ArgData::Kind::kInt:
          bound.args.push_back(KernelArg::Integer(arg.number));
          break;
      }
    }
    entry->launches_.push_back(std::move(bound));
  }
  return entry;
}

void Entry::SetSymbol(std::string_view name, int64_t value) {
  const auto found = std::ranges::find(data_.symbols, name);
  if (found != data_.symbols.end())
    symbols_[static_cast<size_t>(found - data_.symbols.begin())] = value;
}

void Entry::SetInput(std::string_view name, const void* data, int64_t size) {
  for (const size_t i : data_.inputs) {
    if (data_.values[i].name != name) continue;
    values_[i].data = const_cast<void*>(data);
    shapes_[i][0] = size;
  }
}

void Entry::SetCache(size_t index, const void* data, std::initializer_list<int64_t> first,
                     std::span<const int64_t> rest) {
  cache_[index].data = const_cast<void*>(data);
  std::ranges::copy(rest, std::ranges::copy(first, cache_shapes_[index].begin()).out);
}

VoidResult Entry::Place(Workspace* workspace) {
  const Error large{Status::kOutOfMemory,
                    "a step of this size needs more memory than there can be"};
  int64_t total = 0;
  for (size_t i = 0; i < data_.slots.size(); ++i) {
    const std::optional<int64_t> bytes = data_.slots[i].At(symbols_);
    if (!bytes || *bytes > kMaxWorkspace - total) return large;
    offsets_[i] = total;
    total += (*bytes + kSlotAlignment - 1) / kSlotAlignment * kSlotAlignment;
  }
  if (auto ok = workspace->Reserve(std::max<int64_t>(total, kSlotAlignment)); !ok)
    return ok.error();
  for (size_t i = 0; i < data_.values.size(); ++i) {
    const ValueData& value = data_.values[i];
    const bool is_input = value.slot == ValueData::kNone && value.of == ValueData::kNone;
    if (is_input) continue;
    for (size_t axis = 0; axis < value.shape.size(); ++axis) {
      const std::optional<int64_t> size = value.shape[axis].At(symbols_);
      if (!size) return large;
      shapes_[i][axis] = *size;
    }
    if (value.slot != ValueData::kNone) values_[i].data = workspace->data() + offsets_[value.slot];
  }
  for (size_t i = 0; i < data_.values.size(); ++i) {
    const size_t of = data_.values[i].of;
    if (of != ValueData::kNone) values_[i].data = values_[of].data;
  }
  return Ok{};
}

Result<std::span<const float>> Entry::Run(Workspace* workspace, int64_t rows, int64_t columns,
                                          const char* what) {
  if (auto ok = Place(workspace); !ok) return ok.error();
  const KernelTensor& out = values_[data_.output];
  if (out.ndim != 2 || out.shape[0] != rows || out.shape[1] != columns) {
    return Error{Status::kCorrupt, std::string("the program returns something else than ") + what +
                                       " of shape [" + std::to_string(rows) + ", " +
                                       std::to_string(columns) + "]"};
  }
  for (size_t i = 0; i < launches_.size(); ++i) {
    const Launch& launch = launches_[i];
    KernelArg result;
    if (launch.kernel(nullptr, launch.args.data(), static_cast<int32_t>(launch.args.size()),
                      &result) != 0) {
      return Error{Status::kInternal, "launch " + std::to_string(i) + " of entry '" + data_.name +
                                          "', kernel " + data_.launches[i].kernel +
                                          ", failed: " + TakeKernelError()};
    }
  }
  return std::span<const float>(static_cast<const float*>(out.data),
                                static_cast<size_t>(rows * columns));
}

}  // namespace fretsaw
