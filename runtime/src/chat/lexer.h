// Template text to tokens, with Jinja's white space control under trim_blocks and lstrip_blocks.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace fretsaw::chat {

struct Token {
  enum Kind {
    kText,
    kBlockBegin,
    kBlockEnd,
    kPrintBegin,
    kPrintEnd,
    kName,
    kString,
    kInt,
    kFloat,
    kOp,
    kEnd
  };
  Kind kind;
  std::string text;
  int line;
};

// Leaves Parse as an Error.
struct TemplateFailure {
  Error error;
};
[[noreturn]] void Fail(Status status, int line, const std::string& message);

// Throws TemplateFailure.
std::vector<Token> Lex(std::string_view source);

}  // namespace fretsaw::chat
