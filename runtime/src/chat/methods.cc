// Methods of text and mappings, and strftime.
#include <utf8proc.h>

#include <algorithm>
#include <cstddef>
#include <ctime>

#include "chat/features.h"
#include "chat/interpreter.h"
#include "chat/lexer.h"
#include "tokenizer/unicode.h"
#include "tokenizer/utf8.h"

namespace fretsaw::chat {
namespace {

// Python's str.isspace set: White_Space and the four information separators.
bool IsPythonSpace(uint32_t c) { return unicode::IsWhiteSpace(c) || (c >= 0x1C && c <= 0x1F); }

std::string Case(const std::string& text, const std::string& how) {
  std::string out;
  bool start = true;
  for (size_t at = 0; at < text.size();) {
    const uint32_t c = utf8::Next(text, at);
    const bool upper = how == "upper" || ((how == "title" || how == "capitalize") && start);
    if (upper) {
      utf8::Append(static_cast<uint32_t>(utf8proc_toupper(static_cast<utf8proc_int32_t>(c))), out);
    } else {
      unicode::AppendLower(c, out);
    }
    if (how == "capitalize") {
      start = false;
    } else {
      const auto category = unicode::CategoryOf(c);
      start = !(category >= unicode::kLu && category <= unicode::kLm);
    }
  }
  return out;
}

Value Split(const std::string& text, const Args& args, bool right) {
  const Value separator = args.Get(0, "sep"), limit = args.Get(1, "maxsplit");
  const int64_t most = limit.As<int64_t>() != nullptr && *limit.As<int64_t>() >= 0
                           ? *limit.As<int64_t>()
                           : INT64_MAX;
  List out;
  if (separator.undefined() || separator.none()) {
    if (most != INT64_MAX)
      Fail(Status::kUnsupported, args.line, "split at white space with maxsplit is not supported");
    size_t begin = std::string::npos;
    for (size_t at = 0; at < text.size();) {
      const size_t here = at;
      if (IsPythonSpace(utf8::Next(text, at))) {
        if (begin != std::string::npos) out.emplace_back(text.substr(begin, here - begin));
        begin = std::string::npos;
      } else if (begin == std::string::npos) {
        begin = here;
      }
    }
    if (begin != std::string::npos) out.emplace_back(text.substr(begin));
    return Value::MakeList(std::move(out));
  }
  const std::string sep = separator.Print();
  if (sep.empty()) Fail(Status::kBadInput, args.line, "split with an empty separator");
  if (right) {
    size_t end = text.size();
    while (static_cast<int64_t>(out.size()) < most && end >= sep.size()) {
      const size_t hit = text.rfind(sep, end - sep.size());
      if (hit == std::string::npos) break;
      out.emplace_back(text.substr(hit + sep.size(), end - hit - sep.size()));
      end = hit;
    }
    out.emplace_back(text.substr(0, end));
    std::ranges::reverse(out);
    return Value::MakeList(std::move(out));
  }
  size_t at = 0;
  while (static_cast<int64_t>(out.size()) < most) {
    const size_t hit = text.find(sep, at);
    if (hit == std::string::npos) break;
    out.emplace_back(text.substr(at, hit - at));
    at = hit + sep.size();
  }
  out.emplace_back(text.substr(at));
  return Value::MakeList(std::move(out));
}

bool Affix(const std::string& text, const Value& affix, bool front, int line) {
  if (const List* l = affix.list()) {
    return std::ranges::any_of(*l, [&](const Value& v) { return Affix(text, v, front, line); });
  }
  const auto* s = affix.As<std::string>();
  if (s == nullptr) Fail(Status::kBadInput, line, "startswith and endswith need text");
  return front ? text.starts_with(*s) : text.ends_with(*s);
}

std::string Replace(const std::string& text, const Args& args) {
  const std::string from = args.Get(0, "old").Print(), to = args.Get(1, "new").Print();
  const Value limit = args.Get(2, "count");
  int64_t left = limit.As<int64_t>() != nullptr && *limit.As<int64_t>() >= 0 ? *limit.As<int64_t>()
                                                                             : INT64_MAX;
  if (from.empty())
    Fail(Status::kUnsupported, args.line, "replace of an empty text is not supported");
  std::string out;
  size_t at = 0;
  for (size_t hit = text.find(from); hit != std::string::npos && left > 0;
       hit = text.find(from, at), --left) {
    out.append(text, at, hit - at).append(to);
    at = hit + from.size();
    if (out.size() > Limits::kOutput)
      Fail(Status::kBadInput, args.line, "replace makes too much text");
  }
  return out.append(text, at);
}

// Character index of a byte offset; -1 stays -1.
int64_t CharIndex(const std::string& text, size_t byte) {
  if (byte == std::string::npos) return -1;
  return std::count_if(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(byte),
                       [](char b) { return (static_cast<unsigned char>(b) & 0xC0u) != 0x80u; });
}

Value SplitLines(const std::string& text) {
  List out;
  for (size_t at = 0; at < text.size();) {
    const size_t end = std::min(text.find_first_of("\r\n", at), text.size());
    out.emplace_back(text.substr(at, end - at));
    at = end + (end + 1 < text.size() && text[end] == '\r' && text[end + 1] == '\n' ? 2 : 1);
  }
  return Value::MakeList(std::move(out));
}

Value TextMethod(const std::string& s, const std::string& name, const Args& args) {
  const Value first = args.Get(0, "chars");
  if (name == "strip") return Strip(s, first, true, true);
  if (name == "lstrip") return Strip(s, first, true, false);
  if (name == "rstrip") return Strip(s, first, false, true);
  if (name == "split" || name == "rsplit") return Split(s, args, name == "rsplit");
  if (name == "splitlines") return SplitLines(s);
  if (name == "startswith") return Affix(s, first, true, args.line);
  if (name == "endswith") return Affix(s, first, false, args.line);
  if (name == "upper" || name == "lower" || name == "title" || name == "capitalize")
    return Case(s, name);
  if (name == "replace") return Replace(s, args);
  if (name == "find") return CharIndex(s, s.find(first.Print()));
  if (name == "rfind") return CharIndex(s, s.rfind(first.Print()));
  if (name == "count") {
    const std::string part = first.Print();
    if (part.empty())
      Fail(Status::kUnsupported, args.line, "count of an empty text is not supported");
    int64_t n = 0;
    for (size_t at = s.find(part); at != std::string::npos; at = s.find(part, at + part.size()))
      ++n;
    return n;
  }
  if (name == "join") {
    Args between;
    between.positional.emplace_back(s);
    between.line = args.line;
    return CallFilter("join", first, between);
  }
  if (name == "removeprefix")
    return s.starts_with(first.Print()) ? s.substr(first.Print().size()) : s;
  if (name == "removesuffix")
    return s.ends_with(first.Print()) ? s.substr(0, s.size() - first.Print().size()) : s;
  if (name == "isdigit") {
    return !s.empty() && std::ranges::all_of(s, [](char c) { return c >= '0' && c <= '9'; });
  }
  Fail(Status::kUnsupported, args.line, "the method '" + name + "' of text is not supported");
}

}  // namespace

std::string Strip(std::string_view text, const Value& chars, bool left, bool right) {
  const auto* set = chars.As<std::string>();
  const auto cut = [&](uint32_t c) {
    if (set == nullptr) return IsPythonSpace(c);
    for (size_t at = 0; at < set->size();) {
      if (utf8::Next(*set, at) == c) return true;
    }
    return false;
  };
  size_t begin = 0, end = text.size();
  while (left && begin < end) {
    size_t next = begin;
    if (!cut(utf8::Next(text, next))) break;
    begin = next;
  }
  while (right && end > begin) {
    size_t last = end;
    if (!cut(utf8::Previous(text, last))) break;
    end = last;
  }
  return std::string(text.substr(begin, end - begin));
}

Value CallMethod(const Value& object, const std::string& name, const Args& args) {
  if (!features::Has(features::kMethods, name)) {
    Fail(Status::kUnsupported, args.line, "the method '" + name + "' is not supported");
  }
  if (const auto* s = object.As<std::string>()) return TextMethod(*s, name, args);
  const Dict* d = object.dict();
  if (d == nullptr) {
    Fail(Status::kBadInput, args.line,
         std::string("a value of type ") + object.TypeName() + " has no method '" + name + "'");
  }
  if (name == "get") {
    const Value* found = d->Find(args.Get(0, "key").Print());
    if (found != nullptr) return *found;
    return args.Has(1, "default") ? args.Get(1, "default") : Value(None{});
  }
  List out;
  for (const auto& [key, value] : d->items) {
    if (name == "keys") {
      out.emplace_back(key);
    } else if (name == "values") {
      out.push_back(value);
    } else if (name == "items") {
      out.push_back(Value::MakeList({Value(key), value}, true));
    } else {
      Fail(Status::kBadInput, args.line, "a mapping has no method '" + name + "'");
    }
  }
  return Value::MakeList(std::move(out));
}

std::string StrfTime(const std::string& format, int64_t now, int line) {
  if (format.size() > 256) Fail(Status::kBadInput, line, "strftime_now: the format is too long");
  std::time_t seconds = now != 0 ? static_cast<std::time_t>(now) : std::time(nullptr);
  std::tm parts{};
  const bool ok =
      now != 0 ? gmtime_r(&seconds, &parts) != nullptr : localtime_r(&seconds, &parts) != nullptr;
  if (!ok) Fail(Status::kBadInput, line, "strftime_now: the date is out of range");
  char buffer[4096];
  return {buffer, std::strftime(buffer, sizeof buffer, format.c_str(), &parts)};
}

}  // namespace fretsaw::chat
