// Values of the template language.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <variant>
#include <vector>

namespace fretsaw::chat {

class Value;
struct Macro;

using List = std::vector<Value>;

// Insertion-ordered, as Python's dict. Chat data has few keys, so lookups are linear.
struct Dict {
  std::vector<std::pair<std::string, Value>> items;
  int depth = 1;              // as in ListBox, when it was made
  bool is_namespace = false;  // namespace(): the only thing a template can assign into
  const Value* Find(std::string_view key) const;
  void Set(std::string_view key, Value value);
};

struct Undefined {
  std::string name;  // for the error message when it is used
};
struct None {};
struct Function {  // a built-in: namespace, range, raise_exception, ...
  std::string name;
};
struct BoundMacro {
  const Macro* macro;
};

// A list also stands for a tuple; `tuple` only changes how it prints.
struct ListBox {
  List items;
  bool tuple = false;
  int depth = 1;  // levels of lists and dicts, of which freeing takes stack
};

class Value {
 public:
  using Storage =
      std::variant<Undefined, None, bool, int64_t, double, std::string, std::shared_ptr<ListBox>,
                   std::shared_ptr<Dict>, Function, BoundMacro>;

  Value() : v_(Undefined{}) {}
  Value(Undefined u) : v_(std::move(u)) {}              // NOLINT(runtime/explicit)
  Value(None) : v_(None{}) {}                           // NOLINT(runtime/explicit)
  Value(bool b) : v_(b) {}                              // NOLINT(runtime/explicit)
  Value(int64_t i) : v_(i) {}                           // NOLINT(runtime/explicit)
  Value(double d) : v_(d) {}                            // NOLINT(runtime/explicit)
  Value(std::string s) : v_(std::move(s)) {}            // NOLINT(runtime/explicit)
  Value(const char*) = delete;                          // would become a bool
  Value(Function f) : v_(std::move(f)) {}               // NOLINT(runtime/explicit)
  Value(BoundMacro m) : v_(m) {}                        // NOLINT(runtime/explicit)
  Value(std::shared_ptr<Dict> d) : v_(std::move(d)) {}  // NOLINT(runtime/explicit)
  static Value MakeList(List items, bool tuple = false);
  static Value MakeDict(Dict dict);
  static Value FromJson(const nlohmann::ordered_json& json);

  template <typename T>
  const T* As() const {
    return std::get_if<T>(&v_);
  }
  const List* list() const;
  Dict* dict() const;
  bool undefined() const { return As<Undefined>() != nullptr; }
  bool none() const { return As<None>() != nullptr; }
  bool number() const { return As<int64_t>() != nullptr || As<double>() != nullptr; }
  double ToDouble() const;

  bool Truthy() const;
  bool Equals(const Value& other) const;         // throws when the values are too large to compare
  std::string Print() const;                     // as Python's str()
  void Repr(std::string& out, int depth) const;  // as Python's repr()
  const char* TypeName() const;                  // as Python names it

 private:
  int Depth() const;  // of a list or dict; 0 of anything else
  bool EqualsWithin(const Value& other, int depth, int& budget) const;

  Storage v_;
};

// As transformers' tojson filter: json.dumps with ensure_ascii off. `indent` < 0: on one line.
void ToJson(const Value& value, int indent, int depth, std::string& out);
// Python's repr of a float.
std::string PrintDouble(double d);

}  // namespace fretsaw::chat
