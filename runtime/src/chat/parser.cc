#include <algorithm>
#include <cstdlib>

#include "chat/ast.h"
#include "chat/features.h"
#include "chat/lexer.h"
#include "chat/token_cursor.h"

namespace fretsaw::chat {
namespace {

class Parser : private TokenCursor {
 public:
  explicit Parser(std::vector<Token> tokens) : TokenCursor(std::move(tokens)) {}

  Block Run() {
    Block block = Body({});
    return block;
  }

 private:
  struct Deeper {
    explicit Deeper(Parser& p) : parser(p) {
      if (++parser.depth_ > Limits::kDepth) parser.Lacking("nesting over 100 levels");
    }
    ~Deeper() { --parser.depth_; }
    Deeper(const Deeper&) = delete;
    Deeper& operator=(const Deeper&) = delete;
    Parser& parser;
  };

  // ---- statements ----

  // Statements until a block that begins with one of `ends`; its name stays the current token.
  Block Body(std::vector<std::string_view> ends) {
    const Deeper deeper(*this);
    Block block;
    for (;;) {
      const Token& token = Now();
      if (token.kind == Token::kEnd) {
        if (!ends.empty()) Bad("expected '" + std::string(ends.back()) + "' before the end");
        return block;
      }
      if (token.kind == Token::kText) {
        block.push_back(Make(Stmt::kText));
        block.back().text = token.text;
        ++at_;
      } else if (token.kind == Token::kPrintBegin) {
        ++at_;
        block.push_back(Make(Stmt::kPrint));
        block.back().expr = TupleOrExpr();
        Need(Token::kPrintEnd, "'}}'");
      } else {
        ++at_;  // kBlockBegin
        if (std::ranges::any_of(ends, [&](auto e) { return IsName(e); })) return block;
        Statement(block);
      }
    }
  }

  Stmt Make(Stmt::Kind kind) const {
    Stmt s;
    s.kind = kind;
    s.line = Now().line;
    return s;
  }
  void EndBlock() { Need(Token::kBlockEnd, "'%}'"); }
  void EndOf(std::string_view name) {
    if (!SkipName(name)) Bad("expected '" + std::string(name) + "'");
    EndBlock();
  }

  void Statement(Block& block) {
    const Stmt blank = Make(Stmt::kText);
    const std::string name = Name();
    if (!features::Has(features::kStatements, name)) {
      Fail(Status::kUnsupported, blank.line, "the statement '" + name + "' is not supported");
    }
    if (name == "if") return block.push_back(If());
    if (name == "for") return block.push_back(For());
    if (name == "set") return block.push_back(Set());
    if (name == "macro") return block.push_back(MacroStatement());
    if (name == "filter") return block.push_back(FilterBlock());
    if (name == "generation") {
      EndBlock();
      block.push_back(Make(Stmt::kGeneration));
      block.back().body = Body({"endgeneration"});
      return EndOf("endgeneration");
    }
    block.push_back(Make(name == "break" ? Stmt::kBreak : Stmt::kContinue));
    EndBlock();
  }

  Stmt If() {
    Stmt s = Make(Stmt::kIf);
    ExprPtr condition = TupleOrExpr();
    for (;;) {
      EndBlock();
      Block body = Body({"elif", "else", "endif"});
      s.branches.emplace_back(std::move(condition), std::move(body));
      if (SkipName("elif")) {
        condition = TupleOrExpr();
      } else if (SkipName("else")) {
        EndBlock();
        s.branches.emplace_back(nullptr, Body({"endif"}));
        break;
      } else {
        break;
      }
    }
    EndOf("endif");
    return s;
  }

  Stmt For() {
    Stmt s = Make(Stmt::kFor);
    const bool bracket = SkipOp("(");
    do s.targets.push_back(Name());
    while (SkipOp(","));
    if (bracket) NeedOp(")");
    if (!SkipName("in")) Bad("expected 'in'");
    s.expr = OrExpr();  // a conditional would swallow the loop's own 'if'
    if (SkipName("if")) s.condition = Expression();
    if (IsName("recursive")) Lacking("a recursive loop");
    EndBlock();
    s.body = Body({"else", "endfor"});
    if (SkipName("else")) {
      EndBlock();
      s.otherwise = Body({"endfor"});
    }
    EndOf("endfor");
    return s;
  }

  Stmt Set() {
    Stmt s = Make(Stmt::kSet);
    do s.targets.push_back(Name());
    while (SkipOp(","));
    if (SkipOp(".")) s.text = Name();
    if (SkipOp("=")) {
      s.expr = TupleOrExpr();
      EndBlock();
      return s;
    }
    if (s.targets.size() != 1 || !s.text.empty()) Bad("expected '='");
    s.kind = Stmt::kSetBlock;
    if (IsOp("|")) Lacking("a filter on a set block");
    EndBlock();
    s.body = Body({"endset"});
    EndOf("endset");
    return s;
  }

  Stmt MacroStatement() {
    Stmt s = Make(Stmt::kMacro);
    s.macro = std::make_shared<Macro>();
    s.macro->name = Name();
    NeedOp("(");
    while (!SkipOp(")")) {
      std::string param = Name();
      ExprPtr fallback = SkipOp("=") ? Expression() : nullptr;
      s.macro->params.emplace_back(std::move(param), std::move(fallback));
      if (!IsOp(")")) NeedOp(",");
    }
    EndBlock();
    s.macro->body = std::make_shared<Block>(Body({"endmacro"}));
    EndOf("endmacro");
    return s;
  }

  Stmt FilterBlock() {
    Stmt s = Make(Stmt::kFilterBlock);
    s.expr = Filter(nullptr);
    EndBlock();
    s.body = Body({"endfilter"});
    EndOf("endfilter");
    return s;
  }

  // ---- expressions, loosest binding first ----

  ExprPtr New(Expr::Kind kind) const {
    auto e = std::make_unique<Expr>();
    e->kind = kind;
    e->line = Now().line;
    return e;
  }
  ExprPtr Binary(std::string op, ExprPtr a, ExprPtr b, bool negate = false) const {
    auto e = New(Expr::kBinary);
    e->text = std::move(op);
    e->a = std::move(a);
    e->b = std::move(b);
    e->negate = negate;
    return Done(std::move(e));
  }
  // `e` with its parts in place. Loops make trees as deep as their chains are long, and what walks
  // a tree, its destructor included, does so by recursion.
  ExprPtr Done(ExprPtr e) const {
    const auto over = [&](const ExprPtr& part) {
      if (part != nullptr) e->depth = std::max(e->depth, part->depth + 1);
    };
    for (const ExprPtr* part : {&e->a, &e->b, &e->c}) over(*part);
    for (const ExprPtr& item : e->items) over(item);
    for (const Argument& arg : e->args) over(arg.value);
    if (e->depth > Limits::kLevels) {
      Lacking("an expression of over " + std::to_string(Limits::kLevels) + " levels");
    }
    return e;
  }

  ExprPtr TupleOrExpr() {
    ExprPtr first = Expression();
    if (!IsOp(",")) return first;
    auto tuple = New(Expr::kTuple);
    tuple->items.push_back(std::move(first));
    while (SkipOp(",")) {
      if (Now().kind == Token::kBlockEnd || Now().kind == Token::kPrintEnd || IsOp(")")) break;
      tuple->items.push_back(Expression());
    }
    return Done(std::move(tuple));
  }

  ExprPtr Expression() {
    const Deeper deeper(*this);
    ExprPtr value = OrExpr();
    while (IsName("if")) {
      auto e = New(Expr::kCondition);
      ++at_;
      e->a = std::move(value);
      e->b = OrExpr();
      if (SkipName("else")) e->c = Expression();
      value = Done(std::move(e));
    }
    return value;
  }

  ExprPtr OrExpr() {
    ExprPtr a = AndExpr();
    while (SkipName("or")) a = Binary("or", std::move(a), AndExpr());
    return a;
  }
  ExprPtr AndExpr() {
    ExprPtr a = NotExpr();
    while (SkipName("and")) a = Binary("and", std::move(a), NotExpr());
    return a;
  }
  ExprPtr NotExpr() {
    const Deeper deeper(*this);
    if (!IsName("not")) return Compare();
    auto e = New(Expr::kUnary);
    ++at_;
    e->text = "not";
    e->a = NotExpr();
    return Done(std::move(e));
  }

  ExprPtr Compare() {
    ExprPtr a = Additive();
    bool chained = false;
    for (;;) {
      std::string op;
      bool negate = false;
      if (Now().kind == Token::kOp &&
          (IsOp("==") || IsOp("!=") || IsOp("<") || IsOp("<=") || IsOp(">") || IsOp(">="))) {
        op = Now().text;
        ++at_;
      } else if (SkipName("in")) {
        op = "in";
      } else if (IsName("not") && Ahead(1).kind == Token::kName && Ahead(1).text == "in") {
        at_ += 2;
        op = "in";
        negate = true;
      } else {
        return a;
      }
      if (chained) Lacking("a chained comparison");
      chained = true;
      a = Binary(std::move(op), std::move(a), Additive(), negate);
    }
  }

  ExprPtr Level(std::initializer_list<std::string_view> ops, ExprPtr (Parser::*next)()) {
    ExprPtr a = (this->*next)();
    for (;;) {
      const auto op = std::ranges::find_if(ops, [&](auto o) { return IsOp(o); });
      if (op == ops.end()) return a;
      ++at_;
      a = Binary(std::string(*op), std::move(a), (this->*next)());
    }
  }
  ExprPtr Additive() { return Level({"+", "-"}, &Parser::Concat); }
  ExprPtr Concat() { return Level({"~"}, &Parser::Product); }
  ExprPtr Product() { return Level({"*", "//", "/", "%"}, &Parser::Unary); }

  ExprPtr Unary() {
    const Deeper deeper(*this);
    if (IsOp("-") || IsOp("+")) {
      auto e = New(Expr::kUnary);
      e->text = tokens_[at_++].text;
      e->a = Unary();
      return FiltersAndTests(Done(std::move(e)));
    }
    return FiltersAndTests(Postfix(Primary()));
  }

  ExprPtr Primary() {
    const Token& token = Now();
    auto literal = New(Expr::kLiteral);
    switch (token.kind) {
      case Token::kString: {
        std::string text;
        while (Now().kind == Token::kString) text += tokens_[at_++].text;
        literal->literal = Value(std::move(text));
        return literal;
      }
      case Token::kInt:
        literal->literal = Value(static_cast<int64_t>(std::stoll(token.text)));
        break;
      case Token::kFloat:
        literal->literal = Value(std::strtod(token.text.c_str(), nullptr));
        break;
      case Token::kName:
        return NameOrConstant();
      case Token::kOp:
        return Bracketed();
      default:
        Bad("expected a value, got '" + token.text + "'");
    }
    ++at_;
    return literal;
  }

  ExprPtr NameOrConstant() {
    auto e = New(Expr::kLiteral);
    const std::string name = Name();
    if (name == "true" || name == "True") {
      e->literal = Value(true);
    } else if (name == "false" || name == "False") {
      e->literal = Value(false);
    } else if (name == "none" || name == "None") {
      e->literal = Value(None{});
    } else {
      e->kind = Expr::kName;
      e->text = name;
    }
    return e;
  }

  ExprPtr Bracketed() {
    if (SkipOp("(")) {
      if (SkipOp(")")) return New(Expr::kTuple);
      ExprPtr inner = TupleOrExpr();
      NeedOp(")");
      return inner;
    }
    const bool dict = IsOp("{");
    if (!dict && !IsOp("[")) Bad("expected a value, got '" + Now().text + "'");
    auto e = New(dict ? Expr::kDict : Expr::kList);
    ++at_;
    const char* close = dict ? "}" : "]";
    while (!SkipOp(close)) {
      e->items.push_back(Expression());
      if (dict) {
        NeedOp(":");
        e->items.push_back(Expression());
      }
      if (!IsOp(close)) NeedOp(",");
    }
    return Done(std::move(e));
  }

  ExprPtr Postfix(ExprPtr a) {
    for (;;) {
      if (IsOp(".")) {
        auto e = New(Expr::kAttribute);
        ++at_;
        e->text = Now().kind == Token::kInt ? tokens_[at_++].text : Name();
        e->a = std::move(a);
        a = Done(std::move(e));
      } else if (IsOp("[")) {
        a = Done(Subscript(std::move(a)));
      } else if (IsOp("(")) {
        auto e = New(Expr::kCall);
        e->a = std::move(a);
        e->args = Arguments();
        a = Done(std::move(e));
      } else {
        return a;
      }
    }
  }

  ExprPtr Subscript(ExprPtr a) {
    auto e = New(Expr::kItem);
    NeedOp("[");
    e->a = std::move(a);
    ExprPtr first = IsOp(":") ? nullptr : Expression();
    if (!IsOp(":")) {
      if (IsOp(",")) Lacking("a subscript with a comma");
      e->b = std::move(first);
      NeedOp("]");
      return e;
    }
    e->kind = Expr::kSlice;
    e->items.push_back(std::move(first));
    while (e->items.size() < 3) {
      const bool more = SkipOp(":");
      e->items.push_back(more && !IsOp(":") && !IsOp("]") ? Expression() : nullptr);
    }
    NeedOp("]");
    return e;
  }

  std::vector<Argument> Arguments() {
    std::vector<Argument> args;
    NeedOp("(");
    while (!SkipOp(")")) {
      if (IsOp("*") || IsOp("**")) Lacking("an argument with *");
      Argument arg;
      if (Now().kind == Token::kName && Ahead(1).kind == Token::kOp && Ahead(1).text == "=") {
        arg.name = Name();
        ++at_;
      }
      arg.value = Expression();
      args.push_back(std::move(arg));
      if (!IsOp(")")) NeedOp(",");
    }
    return args;
  }

  ExprPtr Filter(ExprPtr a) {
    auto e = New(Expr::kFilter);
    e->text = Name();
    if (!features::Has(features::kFilters, e->text)) Lacking("the filter '" + e->text + "'");
    e->a = std::move(a);
    if (IsOp("(")) e->args = Arguments();
    return e;
  }

  ExprPtr FiltersAndTests(ExprPtr a) {
    for (;;) {
      if (SkipOp("|")) {
        a = Done(Filter(std::move(a)));
      } else if (IsName("is")) {
        a = Done(Test(std::move(a)));
      } else if (IsOp("(") || IsOp("[") || IsOp(".")) {
        a = Postfix(std::move(a));  // (x | list)[0] without brackets
      } else {
        return a;
      }
    }
  }

  ExprPtr Test(ExprPtr a) {
    auto e = New(Expr::kTest);
    ++at_;
    e->negate = SkipName("not");
    e->text = Name();
    if (!features::Has(features::kTests, e->text)) Lacking("the test '" + e->text + "'");
    e->a = std::move(a);
    if (IsOp("(")) {
      e->args = Arguments();
    } else if (Now().kind == Token::kString || Now().kind == Token::kInt ||
               Now().kind == Token::kFloat || IsOp("[") || IsOp("{") ||
               (Now().kind == Token::kName && !IsName("else") && !IsName("or") && !IsName("and") &&
                !IsName("is") && !IsName("if") && !IsName("not") && !IsName("in"))) {
      Argument arg;
      arg.value = Postfix(Primary());
      e->args.push_back(std::move(arg));
    }
    return e;
  }

  int depth_ = 0;
};

}  // namespace

Block ParseTemplate(std::string_view source) {
  if (source.size() > Limits::kSource) Fail(Status::kUnsupported, 1, "the template is over 1 MiB");
  return Parser(Lex(source)).Run();
}

}  // namespace fretsaw::chat
