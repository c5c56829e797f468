// Everything of Jinja that this interpreter knows: the one list that the parser and the interpreter
// check against, that the test tool prints, and that frontend/chat_template.py is compared with.
#pragma once

#include <algorithm>
#include <array>
#include <string_view>

namespace fretsaw::chat::features {

using Name = std::string_view;

inline constexpr auto kStatements =
    std::to_array<Name>({"if", "for", "set", "macro", "filter", "generation", "break", "continue"});
inline constexpr auto kFilters = std::to_array<Name>(
    {"trim",    "tojson", "length",   "count", "upper",      "lower",      "capitalize", "title",
     "default", "d",      "join",     "items", "selectattr", "rejectattr", "select",     "reject",
     "map",     "first",  "last",     "list",  "string",     "int",        "float",      "replace",
     "reverse", "unique", "dictsort", "safe",  "indent",     "abs"});
inline constexpr auto kTests = std::to_array<Name>(
    {"defined", "undefined",   "none",  "string",  "mapping", "iterable", "sequence",
     "number",  "integer",     "float", "boolean", "true",    "false",    "odd",
     "even",    "divisibleby", "in",    "eq",      "equalto", "ne",       "lt",
     "le",      "gt",          "ge",    "lower",   "upper",   "callable"});
inline constexpr auto kMethods =
    std::to_array<Name>({"strip",        "lstrip",   "rstrip", "split", "rsplit", "splitlines",
                         "startswith",   "endswith", "upper",  "lower", "title",  "capitalize",
                         "replace",      "find",     "rfind",  "count", "join",   "removeprefix",
                         "removesuffix", "isdigit",  "get",    "items", "keys",   "values"});
inline constexpr auto kFunctions =
    std::to_array<Name>({"namespace", "dict", "range", "raise_exception", "strftime_now"});

template <size_t N>
bool Has(const std::array<Name, N>& names, std::string_view name) {
  return std::ranges::find(names, name) != names.end();
}

}  // namespace fretsaw::chat::features
