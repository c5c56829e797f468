#include <cstdio>

#include "tokenizer/regex.h"
#include "tokenizer/unicode.h"

namespace fretsaw {
namespace {

constexpr size_t kMaxRewritten = 4u << 20;  // bytes; 150 kB is the most a known tokenizer needs

Error Unsupported(std::string_view what, size_t at) {
  return {Status::kUnsupported, "pattern uses " + std::string(what) + " at byte " +
                                    std::to_string(at) + ", which this runtime does not support"};
}

void AppendRanges(std::string_view property, bool negate, std::string& out) {
  std::vector<unicode::Range> ranges;
  unicode::PropertyRanges(property, negate, ranges);
  char buffer[48];
  for (const auto& r : ranges) {
    const int n = std::snprintf(buffer, sizeof buffer, "\\x{%X}-\\x{%X}", r.first, r.last);
    out.append(buffer, static_cast<size_t>(n));
  }
}

class Rewriter {
 public:
  explicit Rewriter(std::string_view pattern) : in_(pattern) {}

  Result<std::string> Run() {
    while (at_ < in_.size()) {
      if (auto step = Step(); !step) return step.error();
      if (out_.size() > kMaxRewritten) return Unsupported("too many character classes", at_);
    }
    return std::move(out_);
  }

 private:
  bool Has(std::string_view token) const { return in_.substr(at_).starts_with(token); }

  VoidResult Step() {
    const char c = in_[at_];
    if (c == '\\') return Escape();
    if (Has("[:")) return PosixBracket();
    if (c == '[') {
      ++depth_;
    } else if (c == ']' && depth_ > 0) {
      --depth_;
    } else if (depth_ == 0 && (Has("(*") || Has("(?{") || Has("(?~"))) {
      return Unsupported("a callout or absent group", at_);
    }
    out_.push_back(c);
    ++at_;
    // A bracket right after the opening one (or its ^) is a literal: []a] and [^]a].
    if (c == '[') {
      if (at_ < in_.size() && in_[at_] == '^') out_.push_back(in_[at_++]);
      if (at_ < in_.size() && in_[at_] == ']') {
        out_.append("\\]");
        ++at_;
      }
    }
    return Ok{};
  }

  void Class(std::string_view property, bool negate) {
    if (depth_ == 0) out_.push_back('[');
    AppendRanges(property, negate, out_);
    if (depth_ == 0) out_.push_back(']');
  }

  VoidResult Escape() {
    if (at_ + 1 >= in_.size()) {
      out_.push_back(in_[at_++]);  // Oniguruma reports it
      return Ok{};
    }
    const char c = in_[at_ + 1];
    switch (c) {
      case 'p':
      case 'P':
        return Property(c == 'P');
      case 'w':
      case 'W':
        Class("w", c == 'W');
        break;
      case 'd':
      case 'D':
        Class("d", c == 'D');
        break;
      case 'b':
      case 'B':
        if (depth_ > 0) {
          out_.append(in_.substr(at_, 2));  // backspace
        } else {
          WordBoundary(c == 'b');
        }
        break;
      case 'X':
      case 'y':
      case 'Y':
        return Unsupported(std::string("\\") + c, at_);
      default:
        out_.append(in_.substr(at_, 2));
    }
    at_ += 2;
    return Ok{};
  }

  VoidResult Property(bool negate) {
    const size_t close = in_.find('}', at_);
    if (at_ + 2 >= in_.size() || in_[at_ + 2] != '{' || close == std::string_view::npos) {
      return Unsupported("\\p without a name in braces", at_);
    }
    const std::string_view name = in_.substr(at_ + 3, close - at_ - 3);
    std::vector<unicode::Range> ranges;
    if (!unicode::PropertyRanges(name, negate, ranges)) {
      return Unsupported("the property " + std::string(in_.substr(at_, close - at_ + 1)), at_);
    }
    Class(name, negate);
    at_ = close + 1;
    return Ok{};
  }

  VoidResult PosixBracket() {
    if (depth_ == 0) {  // "[:" outside a class opens a class that begins with a colon
      out_.append("[:");
      at_ += 2;
      ++depth_;
      return Ok{};
    }
    const size_t close = in_.find(":]", at_);
    if (close == std::string_view::npos) {
      out_.append("\\[");
      ++at_;
      return Ok{};
    }
    std::string_view name = in_.substr(at_ + 2, close - at_ - 2);
    const bool negate = name.starts_with('^');
    if (negate) name.remove_prefix(1);
    if (name == "space") {
      out_.append(
          in_.substr(at_, close + 2 - at_));  // White_Space has been stable since Unicode 6.3
    } else if (name == "digit" || name == "word" || name == "punct") {
      AppendRanges(name, negate, out_);
    } else {
      return Unsupported("the bracket [:" + std::string(name) + ":]", at_);
    }
    at_ = close + 2;
    return Ok{};
  }

  void WordBoundary(bool boundary) {
    std::string word;
    AppendRanges("w", false, word);
    word = "[" + word + "]";
    const std::string after = "(?<=" + word + ")", not_after = "(?<!" + word + ")";
    const std::string before = "(?=" + word + ")", not_before = "(?!" + word + ")";
    out_ += boundary ? "(?:" + after + not_before + "|" + not_after + before + ")"
                     : "(?:" + after + before + "|" + not_after + not_before + ")";
  }

  std::string_view in_;
  std::string out_;
  size_t at_ = 0;
  size_t depth_ = 0;  // of nested [...]
};

}  // namespace

Result<std::string> RewriteUnicodeClasses(std::string_view pattern) {
  return Rewriter(pattern).Run();
}

}  // namespace fretsaw
