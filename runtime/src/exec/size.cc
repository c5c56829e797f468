#include "exec/size.h"

#include <algorithm>
#include <utility>

namespace fretsaw {
namespace {

// Both are at most Size::kMaxNumber.
bool Multiply(int64_t a, int64_t b, int64_t* out) {
  return !__builtin_mul_overflow(a, b, out) && *out <= Size::kMaxNumber;
}

}  // namespace

Size::Size(int64_t constant) {
  if (constant > 0) terms_.push_back({constant, {}});
}

bool Size::Add(Term term) {
  if (term.coefficient < 0 || term.coefficient > kMaxNumber || term.symbols.size() > kMaxDegree) {
    return false;
  }
  if (term.coefficient == 0) return true;
  const auto at =
      std::lower_bound(terms_.begin(), terms_.end(), term,
                       [](const Term& a, const Term& b) { return a.symbols < b.symbols; });
  if (at != terms_.end() && at->symbols == term.symbols) {
    at->coefficient += term.coefficient;
    return at->coefficient <= kMaxNumber;
  }
  if (terms_.size() == kMaxTerms) return false;
  terms_.insert(at, std::move(term));
  return true;
}

std::optional<int64_t> Size::At(std::span<const int64_t> values) const {
  int64_t total = 0;
  for (const Term& term : terms_) {
    int64_t product = term.coefficient;
    for (const uint8_t symbol : term.symbols) {
      if (!Multiply(product, values[symbol], &product)) return std::nullopt;
    }
    total += product;
    if (total > kMaxNumber) return std::nullopt;
  }
  return total;
}

bool Size::Covers(const Size& other) const {
  return std::ranges::all_of(other.terms_, [this](const Term& wanted) {
    return std::ranges::any_of(terms_, [&wanted](const Term& term) {
      return term.symbols == wanted.symbols && term.coefficient >= wanted.coefficient;
    });
  });
}

std::optional<Size> Size::Times(const Size& other) const {
  Size out;
  for (const Term& a : terms_) {
    for (const Term& b : other.terms_) {
      Term product{0, a.symbols};
      if (!Multiply(a.coefficient, b.coefficient, &product.coefficient)) return std::nullopt;
      product.symbols.insert(product.symbols.end(), b.symbols.begin(), b.symbols.end());
      std::ranges::sort(product.symbols);
      if (!out.Add(std::move(product))) return std::nullopt;
    }
  }
  return out;
}

}  // namespace fretsaw
