// Where a parser stands in the tokens of a template: looking, skipping, and errors that name the
// line.
#pragma once

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "chat/lexer.h"

namespace fretsaw::chat {

class TokenCursor {
 protected:
  explicit TokenCursor(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  const Token& Now() const { return tokens_[at_]; }
  const Token& Ahead(size_t n) const { return tokens_[std::min(at_ + n, tokens_.size() - 1)]; }
  bool IsOp(std::string_view op) const { return Now().kind == Token::kOp && Now().text == op; }
  bool IsName(std::string_view name) const {
    return Now().kind == Token::kName && Now().text == name;
  }
  bool SkipOp(std::string_view op) { return IsOp(op) && ++at_; }
  bool SkipName(std::string_view name) { return IsName(name) && ++at_; }

  [[noreturn]] void Bad(const std::string& message) const {
    Fail(Status::kCorrupt, Now().line, message);
  }
  [[noreturn]] void Lacking(const std::string& message) const {
    Fail(Status::kUnsupported, Now().line, message + " is not supported");
  }

  void NeedOp(std::string_view op) {
    if (!SkipOp(op)) Bad("expected '" + std::string(op) + "', got '" + Now().text + "'");
  }
  std::string Name() {
    if (Now().kind != Token::kName) Bad("expected a name, got '" + Now().text + "'");
    return tokens_[at_++].text;
  }
  void Need(Token::Kind kind, const char* what) {
    if (Now().kind != kind) Bad(std::string("expected ") + what + ", got '" + Now().text + "'");
    ++at_;
  }

  std::vector<Token> tokens_;  // the last one ends the template
  size_t at_ = 0;
};

}  // namespace fretsaw::chat
