// Expressions.
#include <algorithm>
#include <cmath>

#include "chat/features.h"
#include "chat/interpreter.h"
#include "chat/lexer.h"
#include "tokenizer/utf8.h"

namespace fretsaw::chat {
namespace {

[[noreturn]] void BadOperands(const std::string& op, const Value& a, const Value& b, int line) {
  if (a.undefined()) Undefined_(a, line);
  if (b.undefined()) Undefined_(b, line);
  Fail(Status::kBadInput, line,
       "'" + op + "' does not work on " + a.TypeName() + " and " + b.TypeName());
}

// Byte offsets of the characters of valid UTF-8, and of its end.
std::vector<size_t> Characters(const std::string& text) {
  std::vector<size_t> out;
  for (size_t at = 0; at < text.size(); at += utf8::Length(static_cast<unsigned char>(text[at])))
    out.push_back(at);
  out.push_back(text.size());
  return out;
}

int64_t FloorDivide(int64_t a, int64_t b) {
  return a / b - ((a % b != 0 && (a < 0) != (b < 0)) ? 1 : 0);
}

Value IntArithmetic(const std::string& op, int64_t a, int64_t b, int line) {
  int64_t out = 0;
  bool overflow = false;
  if (op == "+") {
    overflow = __builtin_add_overflow(a, b, &out);
  } else if (op == "-") {
    overflow = __builtin_sub_overflow(a, b, &out);
  } else if (op == "*") {
    overflow = __builtin_mul_overflow(a, b, &out);
  } else {
    if (b == 0) Fail(Status::kBadInput, line, "division by zero");
    if (op == "/") return static_cast<double>(a) / static_cast<double>(b);
    overflow = b == -1 && a == INT64_MIN;
    if (!overflow) out = op == "//" ? FloorDivide(a, b) : a - FloorDivide(a, b) * b;
  }
  if (overflow) Fail(Status::kBadInput, line, "the number is too large");
  return out;
}

Value FloatArithmetic(const std::string& op, double a, double b, int line) {
  if (op == "+") return a + b;
  if (op == "-") return a - b;
  if (op == "*") return a * b;
  if (b == 0) Fail(Status::kBadInput, line, "division by zero");
  if (op == "/") return a / b;
  const double floor = std::floor(a / b);
  return op == "//" ? floor : a - floor * b;
}

}  // namespace

int CompareValues(const Value& a, const Value& b, int line) {
  if (a.number() && b.number()) {
    const double x = a.ToDouble(), y = b.ToDouble();
    return x < y ? -1 : x > y ? 1 : 0;
  }
  const auto* s = a.As<std::string>();
  const auto* t = b.As<std::string>();
  if (s == nullptr || t == nullptr) BadOperands("<", a, b, line);
  const int order = s->compare(*t);
  return order < 0 ? -1 : order > 0 ? 1 : 0;
}

Value Interpreter::Eval(const Expr& e) {
  const Level level(this, e.line);
  Step(e.line);
  switch (e.kind) {
    case Expr::kLiteral:
      return e.literal;
    case Expr::kName:
      return Lookup(e.text);
    case Expr::kList:
    case Expr::kTuple: {
      List items;
      for (const ExprPtr& item : e.items) items.push_back(Eval(*item));
      return Value::MakeList(std::move(items), e.kind == Expr::kTuple);
    }
    case Expr::kDict: {
      Dict dict;
      for (size_t i = 0; i + 1 < e.items.size(); i += 2) {
        const Value key = Eval(*e.items[i]);
        if (key.As<std::string>() == nullptr)
          Fail(Status::kUnsupported, e.line, "a dictionary key that is not text");
        dict.Set(*key.As<std::string>(), Eval(*e.items[i + 1]));
      }
      return Value::MakeDict(std::move(dict));
    }
    case Expr::kAttribute:
      return EvalAttribute(Eval(*e.a), e.text, e.line);
    case Expr::kItem: {
      const Value object = Eval(*e.a);
      return EvalItem(object, Eval(*e.b), e.line);
    }
    case Expr::kSlice:
      return EvalSlice(e);
    case Expr::kCall:
      return EvalCall(e);
    case Expr::kFilter: {
      const Value value = Eval(*e.a);
      Value out = CallFilter(e.text, value, EvalArgs(e.args, e.line));
      if (const auto* s = out.As<std::string>()) Grow(s->size(), e.line);
      if (const List* l = out.list()) Grow(l->size() * sizeof(Value), e.line);
      return out;
    }
    case Expr::kTest: {
      const Value value = Eval(*e.a);
      return CallTest(e.text, value, EvalArgs(e.args, e.line)) != e.negate;
    }
    case Expr::kUnary: {
      const Value value = Eval(*e.a);
      if (e.text == "not") return !value.Truthy();
      if (!value.number()) BadOperands(e.text, value, value, e.line);
      if (e.text == "+") return value;
      if (const auto* i = value.As<int64_t>()) return IntArithmetic("-", 0, *i, e.line);
      return -value.ToDouble();
    }
    case Expr::kBinary:
      return EvalBinary(e);
    case Expr::kCondition:
      if (Eval(*e.b).Truthy()) return Eval(*e.a);
      return e.c != nullptr ? Eval(*e.c) : Value(Undefined{"the else of an inline if"});
  }
  return Undefined{};
}

Value Interpreter::EvalBinary(const Expr& e) {
  const std::string& op = e.text;
  const Value a = Eval(*e.a);
  if (op == "and") return a.Truthy() ? Eval(*e.b) : a;
  if (op == "or") return a.Truthy() ? a : Eval(*e.b);
  const Value b = Eval(*e.b);
  if (op == "==") return a.Equals(b);
  if (op == "!=") return !a.Equals(b);
  if (op == "in") return Contains(b, a, e.line) != e.negate;
  if (op == "<") return CompareValues(a, b, e.line) < 0;
  if (op == "<=") return CompareValues(a, b, e.line) <= 0;
  if (op == ">") return CompareValues(a, b, e.line) > 0;
  if (op == ">=") return CompareValues(a, b, e.line) >= 0;
  const auto text = [&](std::string joined) {
    Grow(joined.size(), e.line);
    return Value(std::move(joined));
  };
  if (op == "~") return text(a.Print() + b.Print());
  const auto* s = a.As<std::string>();
  const auto* t = b.As<std::string>();
  if (op == "+" && s != nullptr && t != nullptr) return text(*s + *t);
  const auto *i = a.As<int64_t>(), *k = b.As<int64_t>();
  if (op == "*" && s != nullptr && k != nullptr) {
    const size_t times = *k > 0 ? static_cast<size_t>(*k) : 0;
    if (times > 0 && s->size() > Limits::kOutput / times) Grow(Limits::kOutput + 1, e.line);
    std::string out;
    for (size_t n = 0; n < times && !s->empty(); ++n) out += *s;
    return text(std::move(out));
  }
  if (op == "+" && a.list() != nullptr && b.list() != nullptr) {
    List joined = *a.list();
    joined.insert(joined.end(), b.list()->begin(), b.list()->end());
    Grow(joined.size() * sizeof(Value), e.line);
    return Value::MakeList(std::move(joined));
  }
  if (i != nullptr && k != nullptr) return IntArithmetic(op, *i, *k, e.line);
  if (!a.number() || !b.number()) BadOperands(op, a, b, e.line);
  return FloatArithmetic(op, a.ToDouble(), b.ToDouble(), e.line);
}

Value Interpreter::EvalAttribute(const Value& object, const std::string& name, int line) {
  if (object.undefined()) Undefined_(object, line);
  if (const Dict* d = object.dict()) {
    if (const Value* value = d->Find(name)) return *value;
  }
  return Undefined{name};
}

Value Interpreter::EvalItem(const Value& object, const Value& key, int line) {
  if (object.undefined()) Undefined_(object, line);
  if (const auto* name = key.As<std::string>()) return EvalAttribute(object, *name, line);
  const auto* index = key.As<int64_t>();
  if (index == nullptr) return Undefined{key.Print()};
  const auto at = [&](size_t size) {
    return *index < 0 ? *index + static_cast<int64_t>(size) : *index;
  };
  if (const List* l = object.list()) {
    const int64_t i = at(l->size());
    if (i >= 0 && i < static_cast<int64_t>(l->size())) return (*l)[static_cast<size_t>(i)];
  } else if (const auto* s = object.As<std::string>()) {
    const auto ends = Characters(*s);
    const int64_t i = at(ends.size() - 1);
    if (i >= 0 && i + 1 < static_cast<int64_t>(ends.size())) {
      const auto u = static_cast<size_t>(i);
      return s->substr(ends[u], ends[u + 1] - ends[u]);
    }
  }
  return Undefined{"item " + std::to_string(*index)};
}

Value Interpreter::EvalSlice(const Expr& e) {
  const Value object = Eval(*e.a);
  if (object.undefined()) Undefined_(object, e.line);
  const List items = Iterate(object, e.line);
  const auto part = [&](size_t n, int64_t missing) {
    if (e.items[n] == nullptr) return missing;
    const Value v = Eval(*e.items[n]);
    if (v.none()) return missing;
    if (v.As<int64_t>() == nullptr) Fail(Status::kBadInput, e.line, "a slice needs whole numbers");
    return *v.As<int64_t>();
  };
  const auto n = static_cast<int64_t>(items.size());
  const int64_t step = part(2, 1);
  if (step == 0) Fail(Status::kBadInput, e.line, "a slice with step 0");
  const auto clamp = [&](int64_t i) {
    if (i < 0) i = i < -n ? -1 : i + n;
    return step > 0 ? std::clamp<int64_t>(i, 0, n) : std::clamp<int64_t>(i, -1, n - 1);
  };
  const int64_t from =
      e.items[0] == nullptr ? (step > 0 ? 0 : n - 1) : clamp(part(0, step > 0 ? 0 : n - 1));
  const bool to_end = e.items[1] == nullptr || part(1, INT64_MIN) == INT64_MIN;
  const int64_t to = to_end ? (step > 0 ? n : -1) : clamp(part(1, 0));
  List out;
  for (int64_t i = from; step > 0 ? i < to : i > to;) {
    out.push_back(items[static_cast<size_t>(i)]);
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  if (object.As<std::string>() == nullptr) return Value::MakeList(std::move(out));
  std::string text;
  for (const Value& c : out) text += *c.As<std::string>();
  return text;
}

Value Interpreter::EvalCall(const Expr& e) {
  if (e.a->kind == Expr::kAttribute) {
    const Value object = Eval(*e.a->a);
    if (object.undefined()) Undefined_(object, e.line);
    Value out = CallMethod(object, e.a->text, EvalArgs(e.args, e.line));
    if (const auto* s = out.As<std::string>()) Grow(s->size(), e.line);
    if (const List* l = out.list()) Grow(l->size() * sizeof(Value), e.line);
    return out;
  }
  const Value callee = Eval(*e.a);
  const Args args = EvalArgs(e.args, e.line);
  if (const auto* f = callee.As<Function>()) return CallFunction(f->name, args);
  if (const auto* m = callee.As<BoundMacro>()) return CallMacro(*m->macro, args);
  if (callee.undefined()) Undefined_(callee, e.line);
  Fail(Status::kBadInput, e.line,
       std::string("a value of type ") + callee.TypeName() + " cannot be called");
}

}  // namespace fretsaw::chat
