#include "chat/lexer.h"

#include <algorithm>
#include <cstddef>

namespace fretsaw::chat {
namespace {

constexpr size_t kMaxTokens = 200'000;

bool IsNameStart(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsSpace(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

class Lexer {
 public:
  explicit Lexer(std::string_view source) : in_(Normalize(source)) {}

  std::vector<Token> Run() {
    while (at_ < in_.size()) Data();
    Push(Token::kEnd, "");
    return std::move(tokens_);
  }

 private:
  // Jinja reads all line ends as \n and drops one at the very end.
  static std::string Normalize(std::string_view source) {
    std::string out;
    for (size_t i = 0; i < source.size(); ++i) {
      if (source[i] == '\r') {
        out += '\n';
        if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
      } else {
        out += source[i];
      }
    }
    if (out.ends_with('\n')) out.pop_back();
    return out;
  }

  bool Has(std::string_view s) const { return std::string_view(in_).substr(at_).starts_with(s); }

  void Push(Token::Kind kind, std::string text) {
    if (tokens_.size() >= kMaxTokens) Fail(Status::kUnsupported, line_, "the template is too long");
    tokens_.push_back({kind, std::move(text), line_});
  }

  void Advance(size_t to) {
    line_ += static_cast<int>(std::count(in_.begin() + static_cast<std::ptrdiff_t>(at_),
                                         in_.begin() + static_cast<std::ptrdiff_t>(to), '\n'));
    at_ = to;
  }

  // Text up to the next tag, then the tag.
  void Data() {
    const size_t begin = at_;
    size_t open = begin;
    for (;; ++open) {
      open = in_.find('{', open);
      if (open == std::string::npos || open + 1 >= in_.size()) {
        open = std::string::npos;
        break;
      }
      const char kind = in_[open + 1];
      if (kind == '{' || kind == '%' || kind == '#') break;
    }
    if (open == std::string::npos) {
      Push(Token::kText, in_.substr(begin));
      Advance(in_.size());
      return;
    }
    std::string text = in_.substr(begin, open - begin);
    const char kind = in_[open + 1];
    const char sign = open + 2 < in_.size() ? in_[open + 2] : ' ';
    if (sign == '-') {
      while (!text.empty() && IsSpace(text.back())) text.pop_back();
    } else if (sign != '+' && kind != '{') {
      StripIndent(text, begin);
    }
    if (!text.empty()) Push(Token::kText, std::move(text));
    Advance(open + 2 + (sign == '-' || (sign == '+' && kind != '{') ? 1 : 0));
    if (kind == '#') {
      Comment();
    } else {
      Push(kind == '%' ? Token::kBlockBegin : Token::kPrintBegin, "");
      if (kind == '%' && Raw()) return;
      Code(kind == '%');
    }
  }

  // lstrip_blocks: white space between the line's start and the tag goes.
  void StripIndent(std::string& text, size_t begin) const {
    const size_t newline = text.rfind('\n');
    const size_t first = newline == std::string::npos ? 0 : newline + 1;
    const bool line_start = newline != std::string::npos || begin == 0 || in_[begin - 1] == '\n';
    const auto blank = [&] {
      return std::all_of(text.begin() + static_cast<std::ptrdiff_t>(first), text.end(), IsSpace);
    };
    if (line_start && blank()) text.resize(first);
  }

  void AfterTag(bool trim_newline, bool strip) {
    if (strip) {
      size_t to = at_;
      while (to < in_.size() && IsSpace(in_[to])) ++to;
      Advance(to);
    } else if (trim_newline && at_ < in_.size() && in_[at_] == '\n') {
      Advance(at_ + 1);
    }
  }

  void Comment() {
    const size_t close = in_.find("#}", at_);
    if (close == std::string::npos) Fail(Status::kCorrupt, line_, "the comment has no end");
    const char sign = close > at_ ? in_[close - 1] : ' ';
    Advance(close + 2);
    AfterTag(sign != '+', sign == '-');
  }

  // {% raw %} would need its own text mode; no known template uses it.
  bool Raw() {
    size_t at = at_;
    while (at < in_.size() && IsSpace(in_[at])) ++at;
    if (std::string_view(in_).substr(at).starts_with("raw") &&
        !IsNameStart(in_.size() > at + 3 ? in_[at + 3] : ' ')) {
      Fail(Status::kUnsupported, line_, "the statement 'raw' is not supported");
    }
    return false;
  }

  void Code(bool block) {
    const std::string_view close = block ? "%}" : "}}";
    int brackets = 0;
    for (;;) {
      while (at_ < in_.size() && IsSpace(in_[at_])) Advance(at_ + 1);
      if (at_ >= in_.size()) Fail(Status::kCorrupt, line_, "the tag has no end");
      const char sign = in_[at_];
      const bool signed_close = (sign == '-' || (sign == '+' && block)) &&
                                std::string_view(in_).substr(at_ + 1).starts_with(close);
      if (brackets == 0 && (signed_close || Has(close))) {
        Push(block ? Token::kBlockEnd : Token::kPrintEnd, "");
        Advance(at_ + 2 + (signed_close ? 1 : 0));
        AfterTag(block && !(signed_close && sign == '+'), signed_close && sign == '-');
        return;
      }
      One(brackets);
    }
  }

  void One(int& brackets) {
    const char c = in_[at_];
    if (c == '\'' || c == '"') {
      String(c);
    } else if (IsDigit(c)) {
      Number();
    } else if (IsNameStart(c)) {
      size_t end = at_;
      while (end < in_.size() && (IsNameStart(in_[end]) || IsDigit(in_[end]))) ++end;
      Push(Token::kName, in_.substr(at_, end - at_));
      Advance(end);
    } else {
      Operator(brackets);
    }
  }

  void Operator(int& brackets) {
    static constexpr std::string_view kOps[] = {"==", "!=", "<=", ">=", "//", "**", "+", "-", "*",
                                                "/",  "%",  "~",  "<",  ">",  "=",  "(", ")", "[",
                                                "]",  "{",  "}",  "|",  ",",  ":",  "."};
    for (const auto op : kOps) {
      if (!Has(op)) continue;
      if (op == "(" || op == "[" || op == "{") ++brackets;
      if ((op == ")" || op == "]" || op == "}") && brackets > 0) --brackets;
      Push(Token::kOp, std::string(op));
      Advance(at_ + op.size());
      return;
    }
    Fail(Status::kCorrupt, line_, std::string("unexpected character '") + in_[at_] + "'");
  }

  void Number() {
    size_t end = at_;
    bool real = false;
    while (end < in_.size() && (IsDigit(in_[end]) || in_[end] == '_')) ++end;
    if (end + 1 < in_.size() && in_[end] == '.' && IsDigit(in_[end + 1])) {
      real = true;
      ++end;
      while (end < in_.size() && IsDigit(in_[end])) ++end;
    }
    size_t exponent = end + 1 < in_.size() && (in_[end] == 'e' || in_[end] == 'E') ? end + 1 : 0;
    if (exponent != 0 && (in_[exponent] == '+' || in_[exponent] == '-')) ++exponent;
    if (exponent != 0 && exponent < in_.size() && IsDigit(in_[exponent])) {
      real = true;
      for (end = exponent; end < in_.size() && IsDigit(in_[end]);) ++end;
    }
    std::string text = in_.substr(at_, end - at_);
    std::erase(text, '_');
    if (text.size() > 18) Fail(Status::kUnsupported, line_, "the number " + text + " is too long");
    Push(real ? Token::kFloat : Token::kInt, std::move(text));
    Advance(end);
  }

  void String(char quote) {
    std::string out;
    size_t at = at_ + 1;
    for (; at < in_.size() && in_[at] != quote; ++at) {
      if (in_[at] != '\\') {
        out += in_[at];
        continue;
      }
      if (++at >= in_.size()) break;
      switch (in_[at]) {
        case 'n':
          out += '\n';
          break;
        case 't':
          out += '\t';
          break;
        case 'r':
          out += '\r';
          break;
        case '\n':
          break;
        case '\\':
        case '\'':
        case '"':
          out += in_[at];
          break;
        case 'x':
        case 'u':
        case 'U':
        case 'N':
        case 'a':
        case 'b':
        case 'f':
        case 'v':
          Fail(Status::kUnsupported, line_,
               std::string("the escape \\") + in_[at] + " is not supported");
        default:
          if (IsDigit(in_[at]))
            Fail(Status::kUnsupported, line_, "octal escapes are not supported");
          out += '\\';
          out += in_[at];
      }
    }
    if (at >= in_.size()) Fail(Status::kCorrupt, line_, "the text has no closing quote");
    Push(Token::kString, std::move(out));
    Advance(at + 1);
  }

  std::string in_;
  size_t at_ = 0;
  int line_ = 1;
  std::vector<Token> tokens_;
};

}  // namespace

void Fail(Status status, int line, const std::string& message) {
  throw TemplateFailure{{status, "chat template, line " + std::to_string(line) + ": " + message}};
}

std::vector<Token> Lex(std::string_view source) { return Lexer(source).Run(); }

}  // namespace fretsaw::chat
