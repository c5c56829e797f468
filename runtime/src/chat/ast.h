// The parsed template.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "chat/value.h"

namespace fretsaw::chat {

struct Expr;
using ExprPtr = std::unique_ptr<Expr>;

struct Argument {
  std::string name;  // empty: positional
  ExprPtr value;
};

struct Expr {
  enum Kind {
    kLiteral,
    kName,
    kList,
    kTuple,
    kDict,
    kAttribute,  // a.text
    kItem,       // a[b]
    kSlice,      // a[args0:args1:args2], missing parts null
    kCall,       // a(args)
    kFilter,     // a | text(args)
    kTest,       // a is [not] text(args)
    kUnary,      // text a: not, -, +
    kBinary,     // a text b
    kCondition,  // a if b else c
  };
  Kind kind;
  int line;
  int depth = 1;  // levels of this tree
  std::string text;
  bool negate = false;
  Value literal;
  ExprPtr a, b, c;
  std::vector<ExprPtr> items;  // of a list, tuple, dict (key, value, ...) or slice
  std::vector<Argument> args;
};

struct Stmt;
using Block = std::vector<Stmt>;

struct Macro {
  std::string name;
  std::vector<std::pair<std::string, ExprPtr>> params;  // name, default or null
  std::shared_ptr<Block> body;
};

struct Stmt {
  enum Kind {
    kText,
    kPrint,
    kIf,
    kFor,
    kSet,
    kSetBlock,
    kMacro,
    kFilterBlock,
    kGeneration,
    kBreak,
    kContinue
  };
  Kind kind;
  int line;
  std::string text;                                 // text; attribute of a namespace that is set
  std::vector<std::string> targets;                 // names that are set or looped over
  ExprPtr expr, condition;                          // value; filter of a for
  std::vector<std::pair<ExprPtr, Block>> branches;  // of an if; the else has no condition
  Block body, otherwise;
  std::shared_ptr<Macro> macro;
};

struct Limits {
  static constexpr int kDepth =
      100;  // of brackets, blocks and operators that are parsed by recursion
  // Of an expression's tree (a chain of n operators has n levels), and of all that is evaluated at
  // one time: statements, expressions and calls together. A level takes under 2 KiB of stack, so
  // that a template needs less than 1 MiB in all.
  static constexpr int kLevels = 400;
  static constexpr size_t kSteps = 2'000'000;   // expressions and statements evaluated
  static constexpr size_t kOutput = 64u << 20;  // bytes of text made, in all
  static constexpr size_t kSource = 1u << 20;   // bytes of template
};

// Throws TemplateFailure.
Block ParseTemplate(std::string_view source);

}  // namespace fretsaw::chat
