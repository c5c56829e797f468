#include "artifact/kv_info.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <optional>
#include <set>

namespace fretsaw {
namespace {

constexpr int64_t kMaxTokens = std::numeric_limits<int32_t>::max();
constexpr int64_t kMaxWidth = int64_t{1} << 20;   // elements of a key or value
constexpr int64_t kMaxColumn = int64_t{1} << 40;  // bytes of a page of every layer and head
constexpr size_t kMaxPlanes = 64;
constexpr size_t kMaxPlaneRank = 7;  // with the pages before it, 8

// The bits of `value` as a binary float; none if that cannot hold it exactly.
std::optional<uint32_t> FloatBits(double value, int exponent_bits, int mantissa_bits) {
  if (!std::isfinite(value)) return std::nullopt;
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const uint32_t sign = std::signbit(value) ? uint32_t{1} << (exponent_bits + mantissa_bits) : 0;
  if (value == 0) return sign;
  int exponent = 0;
  std::frexp(value, &exponent);
  if (--exponent > bias) return std::nullopt;
  exponent = std::max(exponent, 1 - bias);  // below it are the subnormal numbers
  const double mantissa = std::ldexp(std::abs(value), mantissa_bits - exponent);
  if (mantissa != std::floor(mantissa)) return std::nullopt;
  // The leading one of a normal number adds the one that its exponent field lacks.
  const auto field = static_cast<uint32_t>(exponent + bias - 1) << mantissa_bits;
  return sign | (field + static_cast<uint32_t>(mantissa));
}

template <typename T>
std::vector<std::byte> BytesOf(T value) {
  std::vector<std::byte> bytes(sizeof value);
  std::memcpy(bytes.data(), &value, sizeof value);
  return bytes;
}

template <typename T>
std::vector<std::byte> WholeFill(const Fields& fields) {
  using Limits = std::numeric_limits<T>;
  return BytesOf(static_cast<T>(fields.Int("fill", Limits::min(), Limits::max())));
}

std::optional<uint32_t> FillBits(const Fields& fields, int exponent_bits, int mantissa_bits) {
  return FloatBits(fields.Number("fill"), exponent_bits, mantissa_bits);
}

std::vector<std::byte> ReadFill(const Fields& fields, DType dtype) {
  const auto checked = [&](std::optional<uint32_t> bits) {
    if (!bits) fields.Fail("fill has no exact value in the plane's dtype");
    return *bits;
  };
  switch (dtype) {
    case DType::kF32:
      return BytesOf(checked(FillBits(fields, 8, 23)));
    case DType::kF16:
      return BytesOf(static_cast<uint16_t>(checked(FillBits(fields, 5, 10))));
    case DType::kBF16:
      return BytesOf(static_cast<uint16_t>(checked(FillBits(fields, 8, 7))));
    case DType::kI8:
      return WholeFill<int8_t>(fields);
    case DType::kI32:
      return WholeFill<int32_t>(fields);
    case DType::kI64:
      return WholeFill<int64_t>(fields);
  }
  return {};
}

bool ReadCopied(const Fields& fields) {
  if (!fields.Has("copy")) return true;
  const std::string copy = fields.String("copy", 64);
  if (copy == "page") return true;
  if (copy != "fill") {
    throw UnsupportedField{fields.path() + ".copy: '" + copy + "' is not one of page, fill"};
  }
  if (!fields.Has("fill")) fields.Fail("copy is 'fill', and there is no fill");
  return false;
}

PlaneInfo ReadPlane(const Fields& fields) {
  PlaneInfo plane;
  plane.name = fields.String("name", 64);
  if (plane.name.empty()) fields.Fail("name is empty");
  plane.dtype = ReadDType(fields);
  plane.shape = fields.Ints("shape", 1, kMaxColumn, kMaxPlaneRank);
  if (plane.shape.empty()) fields.Fail("shape is empty");
  int64_t bytes = DTypeBytes(plane.dtype);
  for (const int64_t extent : plane.shape) {
    if (__builtin_mul_overflow(bytes, extent, &bytes) || bytes > kMaxColumn) {
      fields.Fail("a page of '" + plane.name + "' takes over 1 TiB");
    }
  }
  if (fields.Has("fill")) plane.fill = ReadFill(fields, plane.dtype);
  plane.copied = ReadCopied(fields);
  return plane;
}

std::vector<PlaneInfo> ReadPlanes(const Fields& fields) {
  std::vector<PlaneInfo> planes;
  std::set<std::string, std::less<>> names;
  for (const Fields& item : fields.Objects("planes", kMaxPlanes)) {
    planes.push_back(ReadPlane(item));
    if (!names.insert(planes.back().name).second) {
      item.Fail("a second plane '" + planes.back().name + "'");
    }
  }
  if (planes.empty()) fields.Fail("planes is empty");
  return planes;
}

PolicyInfo ReadPolicy(const Fields& kv) {
  if (!kv.Has("policy")) return FullPolicy{};
  const Fields fields = kv.Object("policy");
  const std::string name = fields.String("name", 64);
  if (name == "full") return FullPolicy{};
  if (name == "window") {
    return WindowPolicy{fields.Int("sinks", 0, kMaxTokens), fields.Int("window", 1, kMaxTokens)};
  }
  throw UnsupportedField{fields.path() + ".name: '" + name + "' is not one of full, window"};
}

// What describes keys and values to people and to tools. Planes say all that a program needs, but
// every reader refuses the same manifests.
void CheckDescription(const Fields& fields) {
  fields.Int("key_size", 1, kMaxWidth);
  fields.Int("value_size", 1, kMaxWidth);
  const std::string dtype = fields.String("dtype", 64);
  if (dtype != "f32" && dtype != "f16" && dtype != "int8") {
    throw UnsupportedField{fields.path() + ".dtype: '" + dtype + "' is not one of f32, f16, int8"};
  }
}

}  // namespace

int64_t PlaneInfo::PageBytes() const {
  int64_t bytes = DTypeBytes(dtype);
  for (const int64_t extent : shape) bytes *= extent;
  return bytes;
}

int64_t KvInfo::PageBytes() const {
  int64_t bytes = 0;
  for (const PlaneInfo& plane : planes) bytes += plane.PageBytes();
  return bytes;
}

KvInfo ReadKv(const Fields& fields) {
  KvInfo kv;
  kv.layers = fields.Int("layers", 1, 65536);
  kv.kv_heads = fields.Int("kv_heads", 1, 65536);
  kv.page_tokens = fields.Int("page_tokens", 1, 65536);
  CheckDescription(fields);
  kv.planes = ReadPlanes(fields);
  kv.policy = ReadPolicy(fields);
  // Each number above may be large, not all of them: sizes of caches are sums and products of this.
  int64_t column = 0;
  if (__builtin_mul_overflow(kv.layers * kv.kv_heads, kv.PageBytes(), &column) ||
      column > kMaxColumn) {
    fields.Fail("a page of every layer and head takes over 1 TiB");
  }
  return kv;
}

}  // namespace fretsaw
