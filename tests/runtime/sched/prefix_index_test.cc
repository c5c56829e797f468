// PrefixIndex: what is found is the right pages, what is unused can go, what is used stays.
#include "sched/prefix_index.h"

#include <doctest/doctest.h>

#include "sched/fake_program.h"

namespace fretsaw {
namespace {

using testing::FakeKv;
using Ids = std::vector<int32_t>;

struct Fixture {
  KvCache cache = std::move(KvCache::CreateWithPages(FakeKv(), 32, 4, 40)).value();
  PrefixIndex index{&cache};
};

// A sequence that holds `tokens` and has told the index.
void Fill(Fixture* f, const Ids& tokens, Sequence* sequence, PrefixCursor* cursor) {
  const int64_t found = f->index.Extend(tokens, std::ssize(tokens), sequence, cursor);
  REQUIRE(sequence->Reserve(std::ssize(tokens) - found).ok());
  sequence->Commit(std::ssize(tokens) - found);
  f->index.Publish(tokens, sequence, cursor);
}

TEST_CASE("prefix: full pages of equal tokens are shared, at most `most` tokens of them") {
  Fixture f;
  Sequence a(&f.cache), b(&f.cache), c(&f.cache);
  PrefixCursor at_a, at_b, at_c;
  Fill(&f, {1, 2, 3, 4, 5, 6, 7, 8, 9}, &a, &at_a);
  CHECK(f.index.entries() == 2);
  CHECK(at_a.column == 2);
  const Ids same = {1, 2, 3, 4, 5, 6, 7, 8, 10};
  CHECK(f.index.Extend(same, 8, &b, &at_b) == 8);
  CHECK(b.num_computed_tokens() == 8);
  for (int64_t row = 0; row < 4; ++row) {
    CHECK(b.row(row)[0] == a.row(row)[0]);
    CHECK(b.row(row)[1] == a.row(row)[1]);
  }
  CHECK(f.index.Extend(same, 7, &c, &at_c) == 4);
  Sequence d(&f.cache);
  PrefixCursor at_d;
  // The second page alone is no prefix.
  CHECK(f.index.Extend(Ids{5, 6, 7, 8, 9, 9}, 6, &d, &at_d) == 0);
  CHECK(f.index.Extend(Ids{1, 2, 3}, 3, &d, &at_d) == 0);
}

TEST_CASE("prefix: two that computed the same page end up with one") {
  Fixture f;
  Sequence a(&f.cache), b(&f.cache);
  PrefixCursor at_a, at_b;
  const Ids tokens = {1, 2, 3, 4, 5};
  REQUIRE(a.Reserve(5).ok());
  REQUIRE(b.Reserve(5).ok());
  a.Commit(5);
  b.Commit(5);
  CHECK(f.cache.used_pages() == 16);
  f.index.Publish(tokens, &a, &at_a);
  f.index.Publish(tokens, &b, &at_b);
  CHECK(f.cache.used_pages() == 12);
  CHECK(a.row(3)[0] == b.row(3)[0]);
  CHECK(a.row(3)[1] != b.row(3)[1]);
  CHECK(at_a.entry == at_b.entry);
}

TEST_CASE("prefix: reclaim takes unused leaves, the longest unused first, and no other") {
  Fixture f;
  {
    Sequence a(&f.cache), b(&f.cache);
    PrefixCursor at_a, at_b;
    Fill(&f, {1, 2, 3, 4, 5, 6, 7, 8}, &a, &at_a);
    Fill(&f, {1, 2, 3, 4, 9, 9, 9, 9}, &b, &at_b);
  }
  CHECK(f.cache.used_pages() == 0);
  CHECK(f.cache.free_pages() == 40 - 12);
  Sequence user(&f.cache);
  PrefixCursor at;
  CHECK(f.index.Extend(Ids{1, 2, 3, 4, 5, 6, 7, 8}, 8, &user, &at) == 8);
  f.index.Reclaim(29);
  CHECK(f.cache.free_pages() == 32);  // the page of nines
  f.index.Reclaim(40);
  CHECK(f.cache.free_pages() == 32);  // the rest is in use
  CHECK(f.index.entries() == 2);
  user.Reset();
  f.index.Reclaim(33);
  CHECK(f.index.entries() == 1);  // the leaf went, not the root
  Sequence again(&f.cache);
  PrefixCursor start;
  CHECK(f.index.Extend(Ids{1, 2, 3, 4, 5, 6, 7, 8}, 8, &again, &start) == 4);
  again.Reset();
  f.index.Reclaim(40);
  CHECK(f.cache.free_pages() == 40);
}

TEST_CASE("prefix: an index that ends gives all pages back") {
  KvCache cache = std::move(KvCache::CreateWithPages(FakeKv(), 32, 4, 40)).value();
  {
    PrefixIndex index(&cache);
    Sequence a(&cache);
    PrefixCursor at;
    REQUIRE(a.Reserve(8).ok());
    a.Commit(8);
    index.Publish(Ids{1, 2, 3, 4, 5, 6, 7, 8}, &a, &at);
  }
  CHECK(cache.free_pages() == 40);
}

}  // namespace
}  // namespace fretsaw
