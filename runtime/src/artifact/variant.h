// Which code variant of an artifact this machine runs.
#pragma once

#include <functional>
#include <set>
#include <span>
#include <string>
#include <string_view>

#include "artifact/manifest.h"
#include "base/result.h"

namespace fretsaw {

// The first variant (the list is best first) whose features are all in `machine`; or the one named
// `wanted` ("llvm-x86-64-v3", or without its "llvm-"). Returns an index.
// Errors: kUsage (no variant has that name), kUnsupportedCpu (features missing; all are named).
Result<size_t> ChooseVariant(std::span<const VariantInfo> variants,
                             const std::set<std::string, std::less<>>& machine,
                             std::string_view wanted = {});

}  // namespace fretsaw
