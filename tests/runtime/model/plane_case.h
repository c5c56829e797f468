// KvInfo of tests: planes by name, laid out as docs/artifact.md says.
#pragma once

#include <algorithm>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "artifact/kv_info.h"
#include "model/kv_cache.h"

namespace fretsaw::testing {

// Keys and values in f32.
inline KvInfo PlainKv(int64_t layers, int64_t kv_heads, int64_t key_size, int64_t value_size,
                      int64_t page_tokens) {
  KvInfo kv;
  kv.layers = layers;
  kv.kv_heads = kv_heads;
  kv.page_tokens = page_tokens;
  kv.planes = {{"k_pages", DType::kF32, {key_size, page_tokens}, {}, true},
               {"v_pages", DType::kF32, {page_tokens, value_size}, {}, true}};
  return kv;
}

// The bytes of a plane that belong to a page.
inline std::span<std::byte> PageOf(const KvCache& cache, std::string_view plane, int32_t page) {
  const auto& planes = cache.kv().planes;
  const auto found = std::ranges::find(planes, plane, &PlaneInfo::name);
  assert(found != planes.end());
  const auto bytes = static_cast<size_t>(found->PageBytes());
  auto* start =
      static_cast<std::byte*>(cache.planes()[static_cast<size_t>(found - planes.begin())]);
  return {start + static_cast<size_t>(page) * bytes, bytes};
}

}  // namespace fretsaw::testing
