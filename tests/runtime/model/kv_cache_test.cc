// KvCache and Sequence: pages are handed out once, given back, and never run over.
#include "model/kv_cache.h"

#include <doctest/doctest.h>

#include <set>

namespace fretsaw {
namespace {

KvInfo SmallKv() {
  KvInfo kv;
  kv.layers = 2;
  kv.kv_heads = 3;
  kv.key_size = 4;
  kv.value_size = 5;
  kv.page_tokens = 8;
  return kv;
}

TEST_CASE("kv: size follows the tokens") {
  auto cache = KvCache::Create(SmallKv(), 17, 2);
  REQUIRE(cache.ok());
  CHECK(cache.value().pages_per_row() == 3);
  CHECK(cache.value().pages() == 3 * 6 * 2);
  CHECK(cache.value().bytes() == 36 * 8 * 9 * 4);
  cache.value().k_pages()[36 * 8 * 4 - 1] = 1;  // the last float is ours
  cache.value().v_pages()[36 * 8 * 5 - 1] = 1;
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
    CHECK(a.length() == 0);
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

}  // namespace
}  // namespace fretsaw
