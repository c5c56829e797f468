#include "chat/interpreter.h"

#include <algorithm>
#include <cmath>

#include "chat/features.h"
#include "chat/lexer.h"

namespace fretsaw::chat {
namespace {

std::shared_ptr<ListBox> BoxOf(const Value& v) {
  const auto* box = v.As<std::shared_ptr<ListBox>>();
  return box != nullptr ? *box : nullptr;
}

// True also for values too deep or too large to search: lists that share parts can unfold without
// end. Keeps values free of cycles, so that they can be freed.
bool HoldsNamespace(const Value& value, int depth, int& budget) {
  if (depth > 64 || --budget < 0) return true;
  if (const List* l = value.list()) {
    return std::ranges::any_of(
        *l, [&](const Value& v) { return HoldsNamespace(v, depth + 1, budget); });
  }
  const Dict* d = value.dict();
  if (d == nullptr) return false;
  return d->is_namespace || std::ranges::any_of(d->items, [&](const auto& e) {
           return HoldsNamespace(e.second, depth + 1, budget);
         });
}

Value LoopVariable(const List& items, size_t i) {
  const auto n = static_cast<int64_t>(items.size()), k = static_cast<int64_t>(i);
  Dict loop;
  loop.items = {
      {"index", k + 1},
      {"index0", k},
      {"first", k == 0},
      {"last", k + 1 == n},
      {"length", n},
      {"revindex", n - k},
      {"revindex0", n - k - 1},
      {"previtem", i > 0 ? items[i - 1] : Value(Undefined{"loop.previtem"})},
      {"nextitem", i + 1 < items.size() ? items[i + 1] : Value(Undefined{"loop.nextitem"})}};
  return Value::MakeDict(std::move(loop));
}

}  // namespace

Value Args::Get(size_t index, std::string_view name) const {
  if (index < positional.size()) return positional[index];
  for (const auto& [key, value] : named) {
    if (key == name) return value;
  }
  return Undefined{std::string(name)};
}

bool Args::Has(size_t index, std::string_view name) const {
  return index < positional.size() ||
         std::ranges::any_of(named, [&](const auto& entry) { return entry.first == name; });
}

void Undefined_(const Value& value, int line) {
  Fail(Status::kBadInput, line, "'" + value.As<Undefined>()->name + "' is undefined");
}

Interpreter::Level::Level(Interpreter* interpreter, int line) : depth(interpreter->depth_) {
  if (depth >= Limits::kLevels) {
    Fail(Status::kBadInput, line,
         "blocks, expressions and calls nested deeper than " + std::to_string(Limits::kLevels));
  }
  ++depth;
}

void Interpreter::Step(int line) {
  if (++steps_ > Limits::kSteps) {
    Fail(Status::kBadInput, line, "stopped after " + std::to_string(Limits::kSteps) + " steps");
  }
}

void Interpreter::Grow(size_t bytes, int line) {
  bytes_ += bytes;
  if (bytes_ > Limits::kOutput) {
    Fail(Status::kBadInput, line,
         "stopped after making " + std::to_string(Limits::kOutput >> 20) + " MiB of text");
  }
}

std::string Interpreter::Run(const Block& block) {
  if (Execute(block) != Flow::kNext) Fail(Status::kCorrupt, 1, "break or continue outside a loop");
  return std::move(out_);
}

void Interpreter::Write(std::string_view text, int line) {
  Grow(text.size(), line);
  out_ += text;
}

std::string Interpreter::Capture(const Block& block, Flow& flow) {
  std::string outer;
  outer.swap(out_);
  flow = Execute(block);
  outer.swap(out_);
  return outer;
}

Interpreter::Flow Interpreter::Execute(const Block& block) {
  for (const Stmt& stmt : block) {
    const Flow flow = Execute(stmt);
    if (flow != Flow::kNext) return flow;
  }
  return Flow::kNext;
}

Interpreter::Flow Interpreter::Execute(const Stmt& s) {
  const Level level(this, s.line);
  Step(s.line);
  Flow flow = Flow::kNext;
  switch (s.kind) {
    case Stmt::kText:
      Write(s.text, s.line);
      break;
    case Stmt::kPrint:
      Write(Eval(*s.expr).Print(), s.line);
      break;
    case Stmt::kIf:
      for (const auto& [condition, body] : s.branches) {
        if (condition == nullptr || Eval(*condition).Truthy()) return Execute(body);
      }
      break;
    case Stmt::kFor:
      return Loop(s);
    case Stmt::kSet:
      Assign(s, Eval(*s.expr));
      break;
    case Stmt::kSetBlock:
      scopes_.emplace_back();
      {
        Value text(Capture(s.body, flow));
        scopes_.pop_back();
        Assign(s, std::move(text));
      }
      return flow;
    case Stmt::kMacro:
      scopes_.back()[s.macro->name] = BoundMacro{s.macro.get()};
      break;
    case Stmt::kFilterBlock:
      scopes_.emplace_back();
      {
        const Value text(Capture(s.body, flow));
        scopes_.pop_back();
        Write(CallFilter(s.expr->text, text, EvalArgs(s.expr->args, s.line)).Print(), s.line);
      }
      return flow;
    case Stmt::kGeneration:
      return Execute(s.body);
    case Stmt::kBreak:
      return Flow::kBreak;
    case Stmt::kContinue:
      return Flow::kContinue;
  }
  return flow;
}

void Interpreter::Assign(const Stmt& s, Value value) {
  if (!s.text.empty()) {
    const Value target = Lookup(s.targets[0]);
    Dict* dict = target.dict();
    if (dict == nullptr || !dict->is_namespace) {
      Fail(Status::kBadInput, s.line,
           "cannot assign '" + s.targets[0] + "." + s.text + "': not a namespace");
    }
    int budget = 1'000'000;
    if (HoldsNamespace(value, 0, budget)) {
      Fail(Status::kUnsupported, s.line,
           "a namespace inside a namespace, or a value this large, is not supported");
    }
    dict->Set(s.text, std::move(value));
    return;
  }
  if (s.targets.size() == 1) {
    scopes_.back()[s.targets[0]] = std::move(value);
    return;
  }
  const List parts = Iterate(value, s.line);
  if (parts.size() != s.targets.size()) {
    Fail(Status::kBadInput, s.line,
         "expected " + std::to_string(s.targets.size()) + " values, got " +
             std::to_string(parts.size()));
  }
  for (size_t i = 0; i < parts.size(); ++i) scopes_.back()[s.targets[i]] = parts[i];
}

Interpreter::Flow Interpreter::Loop(const Stmt& s) {
  List items = Iterate(Eval(*s.expr), s.line);
  scopes_.emplace_back();
  if (s.condition != nullptr) {
    List kept;
    for (const Value& item : items) {
      Stmt target;
      target.line = s.line;
      target.targets = s.targets;
      Assign(target, item);
      if (Eval(*s.condition).Truthy()) kept.push_back(item);
    }
    items = std::move(kept);
  }
  for (size_t i = 0; i < items.size(); ++i) {
    Step(s.line);
    scopes_.back().clear();  // what the body sets lives for one round
    Stmt target;
    target.line = s.line;
    target.targets = s.targets;
    Assign(target, items[i]);
    scopes_.back()["loop"] = LoopVariable(items, i);
    if (Execute(s.body) == Flow::kBreak) break;
  }
  scopes_.pop_back();
  return items.empty() ? Execute(s.otherwise) : Flow::kNext;
}

Value Interpreter::Lookup(const std::string& name) const {
  for (size_t i = scopes_.size(); i-- > 0;) {
    if (i != 0 && i < floor_) continue;
    const auto it = scopes_[i].find(name);
    if (it != scopes_[i].end()) return it->second;
  }
  if (features::Has(features::kFunctions, name)) return Function{name};
  return Undefined{name};
}

List Interpreter::Iterate(const Value& value, int line) {
  if (value.undefined()) return {};
  if (const List* l = value.list()) return *l;
  List out;
  if (const Dict* d = value.dict(); d != nullptr && !d->is_namespace) {
    for (const auto& [key, entry] : d->items) out.emplace_back(key);
    return out;
  }
  if (value.As<std::string>() != nullptr) return *CallFilter("list", value, {}).list();
  Fail(Status::kBadInput, line,
       std::string("a value of type ") + value.TypeName() + " is not iterable");
}

Args Interpreter::EvalArgs(const std::vector<Argument>& args, int line) {
  Args out;
  out.line = line;
  for (const Argument& arg : args) {
    if (arg.name.empty()) {
      out.positional.push_back(Eval(*arg.value));
    } else {
      out.named.emplace_back(arg.name, Eval(*arg.value));
    }
  }
  return out;
}

Value Interpreter::CallMacro(const Macro& macro, const Args& args) {
  if (args.positional.size() > macro.params.size()) {
    Fail(Status::kBadInput, args.line,
         "macro '" + macro.name + "' takes at most " + std::to_string(macro.params.size()) +
             " arguments");
  }
  const size_t old_floor = floor_;
  floor_ = scopes_.size();
  scopes_.emplace_back();
  for (size_t i = 0; i < macro.params.size(); ++i) {
    const auto& [name, fallback] = macro.params[i];
    Value value = args.Get(i, name);
    if (!args.Has(i, name) && fallback != nullptr) value = Eval(*fallback);
    scopes_.back()[name] = std::move(value);
  }
  Flow flow = Flow::kNext;
  std::string text = Capture(*macro.body, flow);
  scopes_.pop_back();
  floor_ = old_floor;
  return text;
}

Value Interpreter::CallFunction(const std::string& name, const Args& args) {
  if (name == "raise_exception") {
    throw TemplateFailure{{Status::kBadInput, "chat template, line " + std::to_string(args.line) +
                                                  ": " + args.Get(0, "message").Print()}};
  }
  if (name == "strftime_now") return StrfTime(args.Get(0, "format").Print(), now_, args.line);
  if (name == "range") {
    int64_t bounds[3] = {0, 0, 1};
    for (size_t i = 0; i < args.positional.size() && i < 3; ++i) {
      const auto* n = args.positional[i].As<int64_t>();
      if (n == nullptr) Fail(Status::kBadInput, args.line, "range needs whole numbers");
      bounds[i] = *n;
    }
    if (args.positional.size() == 1) std::swap(bounds[0], bounds[1]);
    if (bounds[2] == 0) Fail(Status::kBadInput, args.line, "range with step 0");
    List out;
    for (int64_t i = bounds[0]; bounds[2] > 0 ? i < bounds[1] : i > bounds[1]; i += bounds[2]) {
      if (out.size() >= 100'000) Fail(Status::kBadInput, args.line, "range is longer than 100000");
      out.emplace_back(i);
    }
    return Value::MakeList(std::move(out));
  }
  Dict dict;  // namespace(...) and dict(...)
  dict.is_namespace = name == "namespace";
  if (!args.positional.empty()) {
    const Dict* from = args.positional[0].dict();
    if (from == nullptr) Fail(Status::kBadInput, args.line, name + " needs a mapping");
    dict.items = from->items;
  }
  for (const auto& [key, value] : args.named) dict.Set(key, value);
  return Value::MakeDict(std::move(dict));
}

bool Interpreter::Contains(const Value& container, const Value& item, int line) {
  if (container.undefined()) return false;
  if (const auto* s = container.As<std::string>()) {
    const auto* part = item.As<std::string>();
    if (part == nullptr)
      Fail(Status::kBadInput, line,
           std::string("'in' a text needs a text, got ") + item.TypeName());
    return s->find(*part) != std::string::npos;
  }
  if (const Dict* d = container.dict()) {
    const auto* key = item.As<std::string>();
    return key != nullptr && d->Find(*key) != nullptr;
  }
  const auto box = BoxOf(container);
  if (box == nullptr)
    Fail(Status::kBadInput, line, std::string("'in' does not work on ") + container.TypeName());
  return std::ranges::any_of(box->items, [&](const Value& v) { return v.Equals(item); });
}

}  // namespace fretsaw::chat
