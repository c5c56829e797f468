// Sizes of a step program: arithmetic within bounds, and when one is enough for another.
#include "exec/size.h"

#include <doctest/doctest.h>

#include <array>

namespace fretsaw {
namespace {

Size Of(std::initializer_list<Term> terms) {
  Size size;
  for (const Term& term : terms) REQUIRE(size.Add(term));
  return size;
}

TEST_CASE("a size is evaluated, and its terms are those of equal monomials") {
  const std::array<int64_t, 2> values{5, 7};
  CHECK(Size().At(values) == 0);
  CHECK(Size(9).At(values) == 9);
  const Size size = Of({{2, {0}}, {3, {0, 1}}, {4, {}}, {1, {0}}});
  CHECK(size.At(values) == 3 * 5 + 3 * 35 + 4);
  CHECK(size.terms().size() == 3);
  CHECK(size == Of({{4, {}}, {3, {0, 1}}, {3, {0}}}));
  CHECK_FALSE(size == Of({{4, {}}, {3, {0, 1}}, {2, {0}}}));
}

TEST_CASE("a product has every term, in any order of factors") {
  const Size a = Of({{2, {0}}, {3, {}}}), b = Of({{1, {1}}, {5, {}}});
  CHECK(*a.Times(b) == Of({{2, {0, 1}}, {10, {0}}, {3, {1}}, {15, {}}}));
  CHECK(*a.Times(b) == *b.Times(a));
  CHECK(*a.Times(Size()) == Size());
}

TEST_CASE("a size covers another coefficient by coefficient") {
  const Size slot = Of({{8, {0}}, {64, {}}});
  CHECK(slot.Covers(Of({{8, {0}}})));
  CHECK(slot.Covers(Size()));
  CHECK(slot.Covers(slot));
  CHECK_FALSE(slot.Covers(Of({{9, {0}}})));
  CHECK_FALSE(slot.Covers(Of({{1, {1}}})));
  CHECK_FALSE(slot.Covers(Of({{1, {0, 0}}})));
  CHECK_FALSE(Size().Covers(Size(1)));
}

TEST_CASE("what is out of bounds is no size") {
  Size size;
  CHECK_FALSE(size.Add({-1, {}}));
  CHECK_FALSE(size.Add({Size::kMaxNumber + 1, {}}));
  CHECK_FALSE(size.Add({1, std::vector<uint8_t>(9, 0)}));
  CHECK(size.Add({Size::kMaxNumber, {0}}));
  CHECK_FALSE(size.Add({1, {0}}));
  const std::array<int64_t, 1> two{2};
  CHECK(Size(Size::kMaxNumber).At(two) == Size::kMaxNumber);
  CHECK_FALSE(Of({{Size::kMaxNumber, {0}}}).At(two));
  CHECK_FALSE(Of({{1, {0, 0}}, {Size::kMaxNumber, {}}}).At(two));
  const std::array<int64_t, 1> large{int64_t{1} << 53};
  CHECK_FALSE(Of({{1, std::vector<uint8_t>(8, 0)}}).At(large));
  CHECK_FALSE(Size(Size::kMaxNumber).Times(Size(2)));
  Size wide;
  for (uint8_t i = 0; i < 65; ++i) CHECK(wide.Add({1, {i}}) == (i < 64));
}

}  // namespace
}  // namespace fretsaw
