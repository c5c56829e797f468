// KvCache and Sequence: pages are handed out once, given back, and never run over.
#include "model/kv_cache.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <set>
#include <utility>
#include <vector>

#include "model/plane_case.h"

namespace fretsaw {
namespace {

using testing::PageOf;

KvInfo SmallKv() { return testing::PlainKv(2, 3, 4, 5, 8); }

TEST_CASE("kv: size follows the tokens") {
  auto cache = KvCache::Create(SmallKv(), 17, 2);
  REQUIRE(cache.ok());
  CHECK(cache.value().pages_per_row() == 3);
  CHECK(cache.value().pages() == 3 * 6 * 2);
  CHECK(cache.value().bytes() == 36 * 8 * 9 * 4);
}

TEST_CASE("kv: no page is in two rows, and all come back") {
  auto created = KvCache::Create(SmallKv(), 24, 2);
  REQUIRE(created.ok());
  KvCache& cache = created.value();
  {
    Sequence a(&cache), b(&cache);
    REQUIRE(a.Reserve(9).ok());
    a.Commit(9);
    REQUIRE(b.Reserve(24).ok());
    REQUIRE(a.Reserve(15).ok());
    std::set<int32_t> pages;
    for (int64_t row = 0; row < cache.rows(); ++row) {
      CHECK(a.row(row).size() == 3);
      for (const int32_t page : a.row(row)) CHECK(pages.insert(page).second);
      for (const int32_t page : b.row(row)) CHECK(pages.insert(page).second);
      CHECK(a.lens()[static_cast<size_t>(row)] == 9);
    }
    CHECK(cache.free_pages() == 0);
    a.Reset();
    CHECK(cache.free_pages() == 18);
    CHECK(a.num_computed_tokens() == 0);
  }
  CHECK(cache.free_pages() == cache.pages());
}

TEST_CASE("kv: more than the capacity is refused and changes nothing") {
  auto created = KvCache::Create(SmallKv(), 24);
  REQUIRE(created.ok());
  Sequence a(&created.value()), greedy(&created.value());
  CHECK(a.Reserve(25).error().status == Status::kPromptTooLong);
  REQUIRE(a.Reserve(16).ok());
  CHECK(greedy.Reserve(9).error().status == Status::kOutOfMemory);
  CHECK(created.value().free_pages() == 6);
  CHECK(greedy.longest_row() == 0);
}

TEST_CASE("kv: impossible sizes") {
  CHECK(KvCache::Create(SmallKv(), 0).error().status == Status::kUsage);
  CHECK(KvCache::Create(SmallKv(), INT64_MAX / 2).error().status == Status::kOutOfMemory);
}

TEST_CASE("kv: fewer pages than the sequences could fill") {
  auto created = KvCache::CreateWithPages(SmallKv(), 24, 4, 13);
  REQUIRE(created.ok());
  CHECK(created.value().bytes() == 13 * 8 * 9 * 4);
  Sequence a(&created.value()), b(&created.value());
  REQUIRE(a.Reserve(16).ok());
  CHECK(b.Reserve(1).error().message == "the KV cache has 1 free pages, 6 are needed");
  CHECK(KvCache::CreateWithPages(SmallKv(), 24, 4, 0).error().status == Status::kUsage);
}

TEST_CASE("kv: a fork shares pages until one of the two writes") {
  auto created = KvCache::Create(SmallKv(), 24, 3);
  REQUIRE(created.ok());
  KvCache& cache = created.value();
  Sequence a(&cache), b(&cache), c(&cache);
  REQUIRE(a.Reserve(20).ok());
  a.Commit(12);  // a full page, half a page, and one reserved ahead
  const auto held = cache.used_pages();
  b.ForkFrom(a);
  CHECK(cache.used_pages() == held);
  CHECK(b.num_computed_tokens() == 12);
  CHECK(b.pages() == 12);
  CHECK(b.Wanted(1) == 6);
  const int32_t shared = a.row(5)[1];
  std::fill_n(PageOf(cache, "k_pages", shared).begin(), 5, std::byte{7});
  REQUIRE(b.Reserve(1).ok());
  CHECK(b.row(5)[0] == a.row(5)[0]);
  CHECK(b.row(5)[1] != shared);
  CHECK(a.row(5)[1] == shared);
  CHECK(PageOf(cache, "k_pages", b.row(5)[1])[4] == std::byte{7});
  CHECK(cache.references(shared) == 1);
  CHECK(a.Wanted(1) == 0);  // alone again: writes in place
  c.ForkFrom(b);
  a.Reset();
  b.Reset();
  CHECK(cache.used_pages() == 12);
  CHECK(c.Wanted(1) == 0);
  c.Reset();
  CHECK(cache.free_pages() == cache.pages());
}

TEST_CASE("kv: rollback gives pages back and never spoils somebody else's") {
  auto created = KvCache::Create(SmallKv(), 24, 2);
  REQUIRE(created.ok());
  KvCache& cache = created.value();
  Sequence a(&cache), b(&cache);
  REQUIRE(a.Reserve(17).ok());
  a.Commit(17);
  b.ForkFrom(a);
  CHECK(b.Rollback(18).error().message == "cannot forget 18 tokens of 17");
  CHECK(b.Rollback(-1).error().status == Status::kUsage);
  REQUIRE(b.Rollback(5).ok());  // into the middle of a page that a has too
  CHECK(b.num_computed_tokens() == 12);
  CHECK(b.longest_row() == 2);
  REQUIRE(b.Reserve(1).ok());
  CHECK(b.row(0)[1] != a.row(0)[1]);
  REQUIRE(a.Rollback(17).ok());
  CHECK(a.num_computed_tokens() == 0);
  CHECK(a.longest_row() == 0);
  CHECK(cache.used_pages() == b.pages());
}

TEST_CASE("kv: a held page outlives its sequence and is copied before it is written") {
  auto created = KvCache::Create(SmallKv(), 24, 2);
  REQUIRE(created.ok());
  KvCache& cache = created.value();
  std::vector<int32_t> column;
  {
    Sequence a(&cache);
    REQUIRE(a.Reserve(8).ok());
    a.Commit(8);
    for (int64_t row = 0; row < cache.rows(); ++row) {
      column.push_back(a.row(row)[0]);
      cache.Hold(column.back());
    }
  }
  CHECK(cache.used_pages() == 0);
  CHECK(cache.free_pages() == cache.pages() - 6);
  Sequence b(&cache);
  b.AppendColumn(column);
  CHECK(b.num_computed_tokens() == 8);
  CHECK(b.Wanted(1) == 6);
  REQUIRE(b.Rollback(1).ok());
  REQUIRE(b.Reserve(1).ok());
  CHECK(b.row(0)[0] != column[0]);
  for (const int32_t page : column) cache.Drop(page);
  CHECK(cache.free_pages() == cache.pages() - 6);
}

// Whether the slots of every row have the positions 0, 1, 2 and so on.
bool InOrder(const KvCache& cache, const Sequence& sequence) {
  for (int64_t row = 0; row < cache.rows(); ++row) {
    for (int64_t slot = 0; slot < sequence.num_computed_tokens(); ++slot) {
      if (sequence.position(row, slot) != slot) return false;
    }
  }
  return true;
}

TEST_CASE("kv: every slot has the position of its token") {
  auto created = KvCache::Create(SmallKv(), 24, 3);
  REQUIRE(created.ok());
  KvCache cache(std::move(created).value());
  CHECK(cache.position_bytes() == 3 * 6 * 3 * 8 * 4);
  std::fill_n(cache.positions(), cache.pages() * 8, -1);  // the last one is ours
  Sequence a(&cache), b(&cache);
  REQUIRE(a.Reserve(24).ok());
  for (const int64_t tokens : {5, 0, 1, 2, 9, 3}) {  // within a page, up to its end, over it
    a.Commit(tokens);
    CHECK(InOrder(cache, a));
  }
  CHECK(std::count(cache.positions(), cache.positions() + cache.pages() * 8, -1) ==
        (cache.pages() * 8) - 6 * 20);
  REQUIRE(a.Rollback(7).ok());  // into the second page
  CHECK(InOrder(cache, a));
  b.ForkFrom(a);
  for (Sequence* sequence : {&a, &b}) {
    REQUIRE(sequence->Reserve(6).ok());
    sequence->Commit(6);
  }
  CHECK(InOrder(cache, a));
  CHECK(InOrder(cache, b));
  a.Reset();
  REQUIRE(a.Reserve(11).ok());  // pages that had other tokens before
  a.Commit(11);
  CHECK(InOrder(cache, a));
  CHECK(InOrder(cache, b));
}

TEST_CASE("kv: positions stay with the page that is shared, copied or replaced") {
  auto created = KvCache::Create(SmallKv(), 24, 3);
  REQUIRE(created.ok());
  KvCache& cache = created.value();
  Sequence a(&cache), b(&cache), c(&cache);
  REQUIRE(a.Reserve(12).ok());
  a.Commit(12);
  std::vector<int32_t> column;
  for (int64_t row = 0; row < cache.rows(); ++row) {
    column.push_back(a.row(row)[0]);
    // As after a policy that has taken every other token out of the row.
    for (int64_t slot = 0; slot < 12; ++slot) {
      cache.positions()[a.row(row)[static_cast<size_t>(slot / 8)] * 8 + slot % 8] =
          static_cast<int32_t>(2 * slot + row);
    }
  }
  const auto moved = [&](const Sequence& sequence, int64_t slots) {
    for (int64_t row = 0; row < cache.rows(); ++row) {
      for (int64_t slot = 0; slot < slots; ++slot) {
        if (sequence.position(row, slot) != 2 * slot + row) return false;
      }
    }
    return true;
  };
  b.ForkFrom(a);
  CHECK(moved(b, 12));
  REQUIRE(b.Reserve(2).ok());  // copies the second page
  b.Commit(2);
  CHECK(moved(b, 12));
  CHECK(b.position(5, 12) == 12);
  CHECK(b.position(5, 13) == 13);
  CHECK(moved(a, 12));
  REQUIRE(b.Rollback(9).ok());  // into the page that both have
  REQUIRE(b.Reserve(1).ok());
  b.Commit(1);
  CHECK(moved(b, 5));
  CHECK(b.position(5, 5) == 5);
  CHECK(moved(a, 12));
  c.AppendColumn(column);
  CHECK(moved(c, 8));
  CHECK(moved(a, 12));
  c.Reset();
  REQUIRE(c.Reserve(8).ok());
  c.Commit(8);
  CHECK(c.position(5, 7) == 7);
  c.ReplaceColumn(0, column);
  CHECK(moved(c, 8));
}

}  // namespace
}  // namespace fretsaw
