// The KV cache as the manifest declares it: its rows, the planes of a page, and the policy that
// says what rows hold. Every number is bounded, so sums and products of sizes need no checks.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <variant>
#include <vector>

#include "artifact/dtype.h"
#include "artifact/fields.h"

namespace fretsaw {

// An array of which every page of the cache has one: keys, values, and whatever else a program
// keeps beside them. Planes are handed to the program in the order of the manifest, each as [pages,
// shape...]; nothing in the runtime goes by their names.
struct PlaneInfo {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;   // of one page
  std::vector<std::byte> fill;  // what every element of a new page is; empty: anything
  bool copied = true;           // a copy of a page has the same contents here; otherwise the fill

  int64_t PageBytes() const;
};

// A row keeps everything it has seen.
struct FullPolicy {};

// A row keeps its first `sinks` slots and its last `window` ones, in whole pages
// (model/cache_policy.h).
struct WindowPolicy {
  int64_t sinks = 0, window = 0;  // tokens
};

using PolicyInfo = std::variant<FullPolicy, WindowPolicy>;

struct KvInfo {
  int64_t layers = 0, kv_heads = 0;
  int64_t page_tokens = 0;
  std::vector<PlaneInfo> planes;
  PolicyInfo policy;

  int64_t PageBytes() const;  // of one page in all planes
};

// Errors: FieldError, UnsupportedField.
KvInfo ReadKv(const Fields& fields);

}  // namespace fretsaw
