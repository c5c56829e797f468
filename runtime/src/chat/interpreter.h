// Runs a parsed template. One object per rendering.
#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>
#include <vector>

#include "chat/ast.h"

namespace fretsaw::chat {

// Arguments of a call, evaluated.
struct Args {
  List positional;
  std::vector<std::pair<std::string, Value>> named;
  int line = 0;
  // The argument at `index` or called `name`; undefined when missing.
  Value Get(size_t index, std::string_view name) const;
  bool Has(size_t index, std::string_view name) const;
};

class Interpreter {
 public:
  explicit Interpreter(int64_t now) : now_(now) {}
  void Define(std::string name, Value value) {
    scopes_.front()[std::move(name)] = std::move(value);
  }
  // Throws TemplateFailure.
  std::string Run(const Block& block);

 private:
  enum class Flow { kNext, kBreak, kContinue };
  using Scope = std::unordered_map<std::string, Value>;

  // One more level of what is being evaluated, while it lives.
  struct Level {
    Level(Interpreter* interpreter, int line);
    ~Level() { --depth; }
    Level(const Level&) = delete;
    Level& operator=(const Level&) = delete;
    int& depth;
  };

  void Step(int line);
  void Grow(size_t bytes, int line);  // counts bytes of text made
  Flow Execute(const Block& block);
  Flow Execute(const Stmt& stmt);
  Flow Loop(const Stmt& stmt);
  void Assign(const Stmt& stmt, Value value);
  void Write(std::string_view text, int line);
  std::string Capture(const Block& block, Flow& flow);

  Value Eval(const Expr& e);
  Value EvalAttribute(const Value& object, const std::string& name, int line);
  Value EvalItem(const Value& object, const Value& key, int line);
  Value EvalSlice(const Expr& e);
  Value EvalBinary(const Expr& e);
  Value EvalCall(const Expr& e);
  Args EvalArgs(const std::vector<Argument>& args, int line);
  Value CallMacro(const Macro& macro, const Args& args);
  Value CallFunction(const std::string& name, const Args& args);
  Value Lookup(const std::string& name) const;
  bool Contains(const Value& container, const Value& item, int line);
  List Iterate(const Value& value, int line);

  std::vector<Scope> scopes_ = std::vector<Scope>(1);
  size_t floor_ = 0;  // scopes below it, except the first, are not seen: those of a macro's caller
  std::string out_;
  size_t steps_ = 0, bytes_ = 0;
  int depth_ = 0;
  int64_t now_;
};

// Each throws TemplateFailure.
Value CallFilter(const std::string& name, const Value& value, const Args& args);
bool CallTest(const std::string& name, const Value& value, const Args& args);
Value CallMethod(const Value& object, const std::string& name, const Args& args);
std::string StrfTime(const std::string& format, int64_t now, int line);
// Python's str.strip() set, or the characters of `chars`.
std::string Strip(std::string_view text, const Value& chars, bool left, bool right);
int CompareValues(const Value& a, const Value& b, int line);  // < 0, 0, > 0
[[noreturn]] void Undefined_(const Value& value, int line);

}  // namespace fretsaw::chat
