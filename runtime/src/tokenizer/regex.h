// A pattern as tokenizer.json writes it: Oniguruma (Ruby syntax), with the character properties of
// the Hugging Face library's Oniguruma version, and with bounds against hostile patterns.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace fretsaw {

struct Span {
  size_t begin;  // bytes
  size_t end;
  bool match;
};

class Regex {
 public:
  // `source` is a pattern, or with `literal` a string to find as it stands.
  static Result<Regex> Compile(std::string_view source, bool literal);

  // All matches of `text` and the stretches between them, in order; covers the text. An empty text
  // gives one stretch. Fails when a hostile pattern uses up its budget of steps.
  VoidResult FindAll(std::string_view text, std::vector<Span>& out) const;

 private:
  struct Program;
  std::shared_ptr<const Program> program_;  // null for a literal
  std::string literal_;
};

// Replaces the classes whose contents depend on the Unicode version (\p{..}, \w, \d, \b) by
// explicit ranges. Fails by name on a construct that would still depend on it.
Result<std::string> RewriteUnicodeClasses(std::string_view pattern);

}  // namespace fretsaw
