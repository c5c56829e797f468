// Parsing JSON that came from outside: size, nesting and number of values are bounded before the
// parser sees the text, because a few megabytes of "[[[[" or "[0,0,0" cost far more once parsed.
#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>
#include <string_view>

#include "base/result.h"

namespace fretsaw {

struct JsonLimits {
  size_t max_bytes = size_t{64} << 20;
  size_t max_depth = 64;
  size_t max_values = size_t{4} << 20;
};

// Parses `text`. `what` names it in messages ("manifest"). Duplicate keys: the last one wins.
Result<nlohmann::json> ParseJson(std::string_view text, std::string_view what,
                                 const JsonLimits& limits = {});

}  // namespace fretsaw
