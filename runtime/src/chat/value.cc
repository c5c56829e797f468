#include "chat/value.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>

#include "tokenizer/unicode.h"
#include "tokenizer/utf8.h"

namespace fretsaw::chat {
namespace {
constexpr int kMaxDepth = 64;              // of printed values
constexpr int kMaxMade = 400;              // of values that are made
constexpr size_t kMaxPrinted = 64u << 20;  // bytes: lists that share parts can print exponentially

void CheckSize(const std::string& out) {
  if (out.size() > kMaxPrinted) throw std::length_error("a printed value is over 64 MiB");
}
int CheckedDepth(int depth) {
  if (depth > kMaxMade) throw std::length_error("a value nested deeper than 400 levels");
  return depth;
}
// Python's str.isprintable, on Unicode 16.
bool Printable(uint32_t c) {
  const auto category = unicode::CategoryOf(c);
  return category != unicode::kCn && category < unicode::kZs;
}

}  // namespace

const Value* Dict::Find(std::string_view key) const {
  for (const auto& [name, value] : items) {
    if (name == key) return &value;
  }
  return nullptr;
}

void Dict::Set(std::string_view key, Value value) {
  for (auto& [name, old] : items) {
    if (name == key) {
      old = std::move(value);
      return;
    }
  }
  items.emplace_back(std::string(key), std::move(value));
}

int Value::Depth() const {
  if (const auto* box = As<std::shared_ptr<ListBox>>()) return (*box)->depth;
  const Dict* d = dict();
  return d != nullptr ? d->depth : 0;
}

Value Value::MakeList(List items, bool tuple) {
  int depth = 1;
  for (const Value& item : items) depth = std::max(depth, CheckedDepth(item.Depth() + 1));
  Value v;
  v.v_ = std::make_shared<ListBox>(ListBox{std::move(items), tuple, depth});
  return v;
}

Value Value::MakeDict(Dict dict) {
  for (const auto& [key, value] : dict.items)
    dict.depth = std::max(dict.depth, CheckedDepth(value.Depth() + 1));
  return Value(std::make_shared<Dict>(std::move(dict)));
}

Value Value::FromJson(const nlohmann::ordered_json& json) {
  if (json.is_null()) return None{};
  if (json.is_boolean()) return json.get<bool>();
  if (json.is_number_integer()) return json.get<int64_t>();
  if (json.is_number_float()) return json.get<double>();
  if (json.is_string()) return json.get<std::string>();
  if (json.is_array()) {
    List items;
    for (const auto& entry : json) items.push_back(FromJson(entry));
    return MakeList(std::move(items));
  }
  Dict dict;
  for (const auto& [key, entry] : json.items()) dict.items.emplace_back(key, FromJson(entry));
  return MakeDict(std::move(dict));
}

const List* Value::list() const {
  const auto* box = As<std::shared_ptr<ListBox>>();
  return box != nullptr ? &(*box)->items : nullptr;
}

Dict* Value::dict() const {
  const auto* box = As<std::shared_ptr<Dict>>();
  return box != nullptr ? box->get() : nullptr;
}

double Value::ToDouble() const {
  if (const auto* i = As<int64_t>()) return static_cast<double>(*i);
  if (const auto* d = As<double>()) return *d;
  return 0;
}

bool Value::Truthy() const {
  if (undefined() || none()) return false;
  if (const auto* b = As<bool>()) return *b;
  if (number()) return ToDouble() != 0;
  if (const auto* s = As<std::string>()) return !s->empty();
  if (const auto* l = list()) return !l->empty();
  if (const auto* d = dict()) return d->is_namespace || !d->items.empty();
  return true;
}

bool Value::Equals(const Value& o) const {
  int budget = 1'000'000;
  return EqualsWithin(o, 0, budget);
}

bool Value::EqualsWithin(const Value& o, int depth, int& budget) const {
  if (depth > kMaxDepth || --budget < 0) throw std::length_error("values too large to compare");
  const auto numeric = [](const Value& v, double& out) {
    if (const auto* b = v.As<bool>()) {
      out = *b ? 1 : 0;
      return true;
    }
    out = v.ToDouble();
    return v.number();
  };
  double a = 0, b = 0;
  if (numeric(*this, a) && numeric(o, b)) return a == b;
  if (v_.index() != o.v_.index()) return false;
  if (undefined() || none()) return true;
  if (const auto* s = As<std::string>()) return *s == *o.As<std::string>();
  if (const auto* l = list()) {
    const List& r = *o.list();
    if (l->size() != r.size()) return false;
    for (size_t i = 0; i < r.size(); ++i) {
      if (!(*l)[i].EqualsWithin(r[i], depth + 1, budget)) return false;
    }
    return true;
  }
  if (const Dict* d = dict()) {
    const Dict* r = o.dict();
    if (d->items.size() != r->items.size()) return false;
    for (const auto& [key, value] : d->items) {
      const Value* other = r->Find(key);
      if (other == nullptr || !value.EqualsWithin(*other, depth + 1, budget)) return false;
    }
    return true;
  }
  return false;
}

const char* Value::TypeName() const {
  static constexpr const char* kNames[] = {"undefined", "NoneType", "bool", "int",      "float",
                                           "str",       "list",     "dict", "function", "macro"};
  return kNames[v_.index()];
}

std::string PrintDouble(double d) {
  if (std::isnan(d)) return "nan";
  if (std::isinf(d)) return d > 0 ? "inf" : "-inf";
  char buffer[40];
  const double size = std::fabs(d);
  const bool fixed = size == 0 || (size >= 1e-4 && size < 1e16);  // where Python changes notation
  const auto end = std::to_chars(buffer, buffer + sizeof buffer, d,
                                 fixed ? std::chars_format::fixed : std::chars_format::scientific);
  std::string text(buffer, end.ptr);
  if (fixed && text.find('.') == std::string::npos) text += ".0";
  return text;
}

std::string Value::Print() const {
  if (const auto* s = As<std::string>()) return *s;
  std::string out;
  if (!undefined()) Repr(out, 0);
  return out;
}

void Value::Repr(std::string& out, int depth) const {
  CheckSize(out);
  if (depth > kMaxDepth) {
    out += "...";
  } else if (none()) {
    out += "None";
  } else if (const auto* b = As<bool>()) {
    out += *b ? "True" : "False";
  } else if (const auto* i = As<int64_t>()) {
    out += std::to_string(*i);
  } else if (const auto* d = As<double>()) {
    out += PrintDouble(*d);
  } else if (const auto* s = As<std::string>()) {
    const char quote =
        s->find('\'') != std::string::npos && s->find('"') == std::string::npos ? '"' : '\'';
    out += quote;
    for (size_t at = 0; at < s->size();) {
      const size_t begin = at;
      const uint32_t c = utf8::Next(*s, at);
      if (c == '\n') {
        out += "\\n";
      } else if (c == '\t') {
        out += "\\t";
      } else if (c == '\r') {
        out += "\\r";
      } else if (c != ' ' && !Printable(c)) {
        char buffer[16];
        const char* format = c < 0x100 ? "\\x%02x" : c < 0x10000 ? "\\u%04x" : "\\U%08x";
        const int n = std::snprintf(buffer, sizeof buffer, format, c);
        out.append(buffer, static_cast<size_t>(n));
      } else {
        if (c == static_cast<unsigned char>(quote) || c == '\\') out += '\\';
        out.append(*s, begin, at - begin);
      }
    }
    out += quote;
  } else if (const auto* box = As<std::shared_ptr<ListBox>>()) {
    const bool tuple = (*box)->tuple;
    out += tuple ? '(' : '[';
    for (size_t k = 0; k < (*box)->items.size(); ++k) {
      if (k > 0) out += ", ";
      (*box)->items[k].Repr(out, depth + 1);
    }
    if (tuple && (*box)->items.size() == 1) out += ',';
    out += tuple ? ')' : ']';
  } else if (const Dict* d = dict()) {
    out += '{';
    bool first = true;
    for (const auto& [key, value] : d->items) {
      if (!first) out += ", ";
      first = false;
      Value(key).Repr(out, depth + 1);
      out += ": ";
      value.Repr(out, depth + 1);
    }
    out += '}';
  } else {
    out += undefined() ? "Undefined" : "<function>";
  }
}

void ToJson(const Value& value, int indent, int depth, std::string& out) {
  if (depth > kMaxDepth) throw std::length_error("tojson: nested deeper than 64 levels");
  CheckSize(out);
  const auto newline = [&](int d) {
    if (indent >= 0) out += "\n" + std::string(static_cast<size_t>(indent * d), ' ');
  };
  const char* comma = indent >= 0 ? "," : ", ";
  if (const auto* b = value.As<bool>()) {
    out += *b ? "true" : "false";
  } else if (value.none()) {
    out += "null";
  } else if (value.number()) {
    value.Repr(out, depth);
  } else if (const auto* s = value.As<std::string>()) {
    out += nlohmann::json(*s).dump();
  } else if (const List* l = value.list()) {
    out += '[';
    for (size_t i = 0; i < l->size(); ++i) {
      if (i > 0) out += comma;
      newline(depth + 1);
      ToJson((*l)[i], indent, depth + 1, out);
    }
    if (!l->empty()) newline(depth);
    out += ']';
  } else if (const Dict* d = value.dict()) {
    out += '{';
    bool first = true;
    for (const auto& [key, entry] : d->items) {
      if (!first) out += comma;
      first = false;
      newline(depth + 1);
      out += nlohmann::json(key).dump() + ": ";
      ToJson(entry, indent, depth + 1, out);
    }
    if (!d->items.empty()) newline(depth);
    out += '}';
  } else {
    throw std::invalid_argument(std::string("tojson: a value of type ") + value.TypeName());
  }
}

}  // namespace fretsaw::chat
