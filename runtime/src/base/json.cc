#include "base/json.h"

#include <string>

namespace fretsaw {
namespace {

struct Extent {
  size_t depth = 0;
  size_t values = 1;
};

// Deepest nesting and an upper bound of the number of values, in one pass without recursion.
Extent Measure(std::string_view text) {
  Extent extent;
  size_t depth = 0;
  bool in_string = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (in_string) {
      if (c == '\\') ++i;
      if (c == '"') in_string = false;
      continue;
    }
    switch (c) {
      case '"':
        in_string = true;
        break;
      case '[':
      case '{':
        extent.depth = std::max(extent.depth, ++depth);
        ++extent.values;
        break;
      case ']':
      case '}':
        if (depth > 0) --depth;
        break;
      case ',':
        ++extent.values;
        break;
      default:
        break;
    }
  }
  return extent;
}

}  // namespace

Result<nlohmann::json> ParseJson(std::string_view text, std::string_view what,
                                 const JsonLimits& limits) {
  const std::string name(what);
  if (text.size() > limits.max_bytes) {
    return Error{Status::kCorrupt, name + ": " + std::to_string(text.size()) +
                                       " bytes, more than the limit of " +
                                       std::to_string(limits.max_bytes)};
  }
  const Extent extent = Measure(text);
  if (extent.depth > limits.max_depth) {
    return Error{Status::kCorrupt,
                 name + ": nested deeper than " + std::to_string(limits.max_depth) + " levels"};
  }
  if (extent.values > limits.max_values) {
    return Error{Status::kCorrupt,
                 name + ": more than " + std::to_string(limits.max_values) + " values"};
  }
  try {
    return nlohmann::json::parse(text.begin(), text.end());
  } catch (const nlohmann::json::exception& e) {
    return Error{Status::kCorrupt, name + ": not valid JSON: " + e.what()};
  } catch (const std::bad_alloc&) {
    return Error{Status::kOutOfMemory, name + ": not enough memory to parse it"};
  }
}

}  // namespace fretsaw
