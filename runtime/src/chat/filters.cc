// Filters and tests.
#include <utf8proc.h>

#include <algorithm>

#include "chat/features.h"
#include "chat/interpreter.h"
#include "chat/lexer.h"
#include "tokenizer/unicode.h"
#include "tokenizer/utf8.h"

namespace fretsaw::chat {
namespace {

const List& NeedList(const Value& value, const Args& args, List& storage) {
  if (const List* l = value.list()) return *l;
  storage.clear();
  if (value.undefined()) return storage;
  if (const Dict* d = value.dict()) {
    for (const auto& [key, entry] : d->items) storage.emplace_back(key);
    return storage;
  }
  const auto* s = value.As<std::string>();
  if (s == nullptr)
    Fail(Status::kBadInput, args.line,
         std::string("a value of type ") + value.TypeName() + " is not iterable");
  for (size_t at = 0; at < s->size();) {
    const size_t n = utf8::Length(static_cast<unsigned char>((*s)[at]));
    storage.emplace_back(s->substr(at, n));
    at += n;
  }
  return storage;
}

Value Attribute(const Value& value, const std::string& path) {
  Value now = value;
  for (size_t at = 0; at <= path.size();) {
    const size_t dot = std::min(path.find('.', at), path.size());
    const Dict* d = now.dict();
    const Value* next = d != nullptr ? d->Find(path.substr(at, dot - at)) : nullptr;
    now = next != nullptr ? Value(*next) : Value(Undefined{path});
    at = dot + 1;
  }
  return now;
}

// select, reject (attribute empty) and selectattr, rejectattr.
Value Select(const std::string& name, const Value& value, Args args) {
  List storage, out;
  const List& items = NeedList(value, args, storage);
  std::string attribute;
  if (name.ends_with("attr")) {
    attribute = args.Get(0, "attribute").Print();
    if (!args.positional.empty()) args.positional.erase(args.positional.begin());
  }
  std::string test;
  if (!args.positional.empty()) {
    test = args.positional[0].Print();
    args.positional.erase(args.positional.begin());
    if (!features::Has(features::kTests, test))
      Fail(Status::kUnsupported, args.line, "the test '" + test + "' is not supported");
  }
  for (const Value& item : items) {
    const Value subject = attribute.empty() ? item : Attribute(item, attribute);
    const bool pass = test.empty() ? subject.Truthy() : CallTest(test, subject, args);
    if (pass == name.starts_with("select")) out.push_back(item);
  }
  return Value::MakeList(std::move(out));
}

Value Map(const Value& value, Args args) {
  List storage, out;
  const List& items = NeedList(value, args, storage);
  if (args.positional.empty()) {
    const std::string attribute = args.Get(1, "attribute").Print();
    const Value fallback = args.Get(2, "default");
    for (const Value& item : items) {
      Value found = Attribute(item, attribute);
      out.push_back(found.undefined() && !fallback.undefined() ? fallback : found);
    }
    return Value::MakeList(std::move(out));
  }
  const std::string filter = args.positional[0].Print();
  if (!features::Has(features::kFilters, filter) || filter == "map") {
    Fail(Status::kUnsupported, args.line, "the filter '" + filter + "' is not supported");
  }
  args.positional.erase(args.positional.begin());
  for (const Value& item : items) out.push_back(CallFilter(filter, item, args));
  return Value::MakeList(std::move(out));
}

std::string Indent(const std::string& text, const Args& args) {
  const Value width = args.Get(0, "width");
  std::string pad;
  if (const auto* s = width.As<std::string>()) {
    pad = *s;
  } else {
    const auto* n = width.As<int64_t>();
    pad.assign(n != nullptr ? static_cast<size_t>(std::clamp<int64_t>(*n, 0, 1000)) : 4, ' ');
  }
  const bool first = args.Get(1, "first").Truthy(), blank = args.Get(2, "blank").Truthy();
  std::string out;
  for (size_t at = 0, line = 0; at <= text.size(); ++line) {
    const size_t end = std::min(text.find('\n', at), text.size());
    const bool empty = end == at;
    if ((line > 0 || first) && (!empty || blank)) out += pad;
    out.append(text, at, end - at);
    if (end < text.size()) out += '\n';
    at = end + 1;
  }
  return out;
}

Value ToJsonFilter(const Value& value, const Args& args) {
  for (const auto& [name, v] : args.named) {
    if (name != "indent" && !(name == "ensure_ascii" && !v.Truthy())) {
      Fail(Status::kUnsupported, args.line, "tojson with '" + name + "' is not supported");
    }
  }
  const Value indent = args.named.empty() ? args.Get(1, "indent") : args.Get(9, "indent");
  if (value.undefined()) Undefined_(value, args.line);
  std::string out;
  const auto* n = indent.As<int64_t>();
  ToJson(value, n != nullptr ? static_cast<int>(std::clamp<int64_t>(*n, 0, 64)) : -1, 0, out);
  return out;
}

Value DictSort(const Value& value, const Args& args) {
  const Dict* d = value.dict();
  if (d == nullptr) Fail(Status::kBadInput, args.line, "dictsort needs a mapping");
  if (!args.positional.empty() || !args.named.empty())
    Fail(Status::kUnsupported, args.line, "dictsort with arguments is not supported");
  auto items = d->items;
  const auto lower = [](const std::string& s) {
    return *CallFilter("lower", s, {}).As<std::string>();
  };
  std::ranges::stable_sort(
      items, [&](const auto& a, const auto& b) { return lower(a.first) < lower(b.first); });
  List out;
  for (auto& [key, entry] : items) out.push_back(Value::MakeList({Value(key), entry}, true));
  return Value::MakeList(std::move(out));
}

Value Number(const Value& value, const Args& args, bool whole) {
  if (const auto* b = value.As<bool>())
    return whole ? Value(int64_t{*b}) : Value(double{*b ? 1.0 : 0.0});
  if (value.number())
    return whole ? Value(static_cast<int64_t>(std::clamp(value.ToDouble(), -9e18, 9e18)))
                 : Value(value.ToDouble());
  const Value fallback =
      args.Has(0, "default") ? args.Get(0, "default") : (whole ? Value(int64_t{0}) : Value(0.0));
  const std::string text = Strip(value.Print(), None{}, true, true);
  char* end = nullptr;
  const double d = std::strtod(text.c_str(), &end);
  if (text.empty() || *end != '\0') return fallback;
  return whole ? Value(static_cast<int64_t>(std::clamp(d, -9e18, 9e18))) : Value(d);
}

Value Join(const Value& value, const Args& args) {
  List storage;
  const Value attribute = args.Get(1, "attribute"), between = args.Get(0, "d");
  std::string out;
  bool first = true;
  for (const Value& item : NeedList(value, args, storage)) {
    if (!first) out += between.Print();
    first = false;
    out += (attribute.undefined() ? item : Attribute(item, attribute.Print())).Print();
    if (out.size() > Limits::kOutput)
      Fail(Status::kBadInput, args.line, "join makes too much text");
  }
  return out;
}

}  // namespace

Value CallFilter(const std::string& name, const Value& value, const Args& args) {
  if (name == "default" || name == "d") {
    const bool missing = value.undefined() || (args.Get(1, "boolean").Truthy() && !value.Truthy());
    if (!missing) return value;
    return args.Has(0, "default_value") ? args.Get(0, "default_value") : Value(std::string());
  }
  if (name == "tojson") return ToJsonFilter(value, args);
  if (name == "join") return Join(value, args);
  if (name == "string") return value.Print();
  if (name == "safe") return value;
  if (name == "int" || name == "float") return Number(value, args, name == "int");
  if (name == "map") return Map(value, args);
  if (name.ends_with("select") || name.ends_with("reject") || name.ends_with("attr"))
    return Select(name, value, args);
  if (name == "dictsort") return DictSort(value, args);
  if (name == "trim") return Strip(value.Print(), args.Get(0, "chars"), true, true);
  if (name == "indent") return Indent(value.Print(), args);
  if (name == "upper" || name == "lower" || name == "title" || name == "capitalize" ||
      name == "replace") {
    return CallMethod(value.Print(), name, args);
  }
  if (name == "items") {
    if (value.undefined()) return Value::MakeList({});
    if (value.dict() == nullptr) Fail(Status::kBadInput, args.line, "items needs a mapping");
    return CallMethod(value, "items", args);
  }
  if (name == "abs") {
    if (const auto* i = value.As<int64_t>()) return *i < 0 && *i != INT64_MIN ? -*i : *i;
    return value.ToDouble() < 0 ? -value.ToDouble() : value.ToDouble();
  }
  List storage;
  const List& items = NeedList(value, args, storage);
  if (name == "length" || name == "count") return static_cast<int64_t>(items.size());
  if (name == "first" || name == "last") {
    if (items.empty()) return Undefined{name + " of an empty list"};
    return name == "first" ? items.front() : items.back();
  }
  List out(items);
  if (name == "reverse") {
    std::ranges::reverse(out);
    if (value.As<std::string>() != nullptr) return Join(Value::MakeList(std::move(out)), Args{});
  } else if (name == "unique") {
    out.clear();
    for (const Value& v : items) {
      if (std::ranges::none_of(out, [&](const Value& o) { return o.Equals(v); })) out.push_back(v);
    }
  }
  return Value::MakeList(std::move(out));  // list
}

bool CallTest(const std::string& name, const Value& v, const Args& args) {
  const Value other = args.Get(0, "other");
  const auto* i = v.As<int64_t>();
  if (name == "defined") return !v.undefined();
  if (name == "undefined") return v.undefined();
  if (name == "none") return v.none();
  if (name == "string") return v.As<std::string>() != nullptr;
  if (name == "mapping") return v.dict() != nullptr && !v.dict()->is_namespace;
  if (name == "iterable" || name == "sequence") {
    return v.undefined() || v.As<std::string>() != nullptr || v.list() != nullptr ||
           (v.dict() != nullptr && !v.dict()->is_namespace);
  }
  if (name == "number") return v.number() || v.As<bool>() != nullptr;
  if (name == "integer") return i != nullptr;
  if (name == "float") return v.As<double>() != nullptr;
  if (name == "boolean") return v.As<bool>() != nullptr;
  if (name == "true") return v.As<bool>() != nullptr && *v.As<bool>();
  if (name == "false") return v.As<bool>() != nullptr && !*v.As<bool>();
  if (name == "callable") return v.As<Function>() != nullptr || v.As<BoundMacro>() != nullptr;
  if (name == "odd" || name == "even" || name == "divisibleby") {
    const auto* by = other.As<int64_t>();
    if (i == nullptr || (name == "divisibleby" && (by == nullptr || *by == 0))) {
      Fail(Status::kBadInput, args.line, "the test '" + name + "' needs whole numbers");
    }
    if (name == "divisibleby") return *by == -1 || *i % *by == 0;
    return (*i % 2 != 0) == (name == "odd");
  }
  if (name == "in") {
    if (const auto* s = other.As<std::string>())
      return v.As<std::string>() != nullptr && s->find(*v.As<std::string>()) != std::string::npos;
    if (const Dict* d = other.dict())
      return v.As<std::string>() != nullptr && d->Find(*v.As<std::string>()) != nullptr;
    const List* l = other.list();
    return l != nullptr && std::ranges::any_of(*l, [&](const Value& e) { return e.Equals(v); });
  }
  if (name == "eq" || name == "equalto") return v.Equals(other);
  if (name == "ne") return !v.Equals(other);
  if (name == "lower" || name == "upper")
    return v.Print() == CallMethod(v.Print(), name, args).Print();
  const int order = CompareValues(v, other, args.line);
  if (name == "lt") return order < 0;
  if (name == "le") return order <= 0;
  if (name == "gt") return order > 0;
  return order >= 0;
}

}  // namespace fretsaw::chat
