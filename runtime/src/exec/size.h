// Sizes of a step program: polynomials in a few symbols (tokens, sequences, ...) with integer
// coefficients of 0 or more, so that one of them can be shown to be enough for another.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

namespace fretsaw {

// coefficient * product of symbols; symbols are numbers of the entry's list, ascending.
struct Term {
  int64_t coefficient = 0;
  std::vector<uint8_t> symbols;

  bool operator==(const Term&) const = default;
};

class Size {
 public:
  static constexpr size_t kMaxTerms = 64;
  static constexpr size_t kMaxDegree = 8;
  static constexpr int64_t kMaxNumber = (int64_t{1} << 53) - 1;

  Size() = default;  // 0
  explicit Size(int64_t constant);

  // Adds a term; false where the result is out of the bounds above.
  bool Add(Term term);

  // The value where symbol i is `values[i]`; nullopt where it is over kMaxNumber.
  std::optional<int64_t> At(std::span<const int64_t> values) const;

  // At least as large as `other` for every value of the symbols: coefficient by coefficient.
  bool Covers(const Size& other) const;

  // The product; nullopt where it is out of bounds.
  std::optional<Size> Times(const Size& other) const;

  std::span<const Term> terms() const { return terms_; }
  bool operator==(const Size&) const = default;

 private:
  std::vector<Term> terms_;  // by symbols, ascending, each product of symbols once
};

}  // namespace fretsaw
