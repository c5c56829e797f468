// Planes of the KV cache: whatever the manifest declares is allocated, filled, copied, shared and
// given back, without a line of code that knows its name.
#include <doctest/doctest.h>

#include <array>
#include <cstring>
#include <set>
#include <utility>
#include <vector>

#include "artifact/builder.h"
#include "artifact/manifest.h"
#include "model/kv_cache.h"
#include "model/plane_case.h"

namespace fretsaw {
namespace {

using testing::PageOf;

// The cache of a manifest whose pages of 4 tokens have more planes than keys and values.
KvInfo Declared(const std::string& more) {
  test::Parts parts;
  const std::string last = R"({"name": "v_pages", "dtype": "f32", "shape": [4, 4]})";
  parts.manifest.replace(parts.manifest.find(last), last.size(), last + ", " + more);
  const test::Bytes bytes = test::Build(parts);
  auto container = Container::Parse(bytes);
  REQUIRE(container.ok());
  auto manifest = Manifest::Parse(container.value());
  REQUIRE(manifest.ok());
  return manifest.value().kv;
}

std::vector<float> Scores(const KvCache& cache, int32_t page) {
  std::vector<float> scores(4);
  std::memcpy(scores.data(), PageOf(cache, "scores", page).data(), sizeof(float) * 4);
  return scores;
}

void SetScore(const KvCache& cache, int32_t page, size_t slot, float score) {
  std::memcpy(PageOf(cache, "scores", page).data() + slot * sizeof score, &score, sizeof score);
}

TEST_CASE("planes: one more in the manifest is one more array beside the pages") {
  const KvInfo kv = Declared(R"({"name": "scores", "dtype": "f32", "shape": [4], "fill": 0})");
  auto created = KvCache::Create(kv, 12, 2);
  REQUIRE(created.ok());
  const KvCache cache(std::move(created).value());
  REQUIRE(cache.planes().size() == 3);
  CHECK(cache.pages() == 3 * 2 * 2);
  CHECK(cache.bytes() == 12 * (64 + 64 + 16));
  PageOf(cache, "scores", 11).back() = std::byte{1};  // the last byte is ours
  CHECK(PageOf(cache, "scores", 11).data() - PageOf(cache, "scores", 0).data() == 11 * 16);
}

TEST_CASE("planes: a page taken anew is filled, a shared one is seen, a copied one is the same") {
  const KvInfo kv = Declared(R"({"name": "scores", "dtype": "f32", "shape": [4], "fill": 0})");
  auto created = KvCache::Create(kv, 12, 2);
  REQUIRE(created.ok());
  KvCache cache(std::move(created).value());
  const std::vector<float> zeros(4, 0.0f), some = {1.5f, 2.5f, 0, 0};
  for (int32_t page = 0; page < cache.pages(); ++page) {  // as another sequence left it
    for (size_t slot = 0; slot < 4; ++slot) SetScore(cache, page, slot, 9);
  }
  Sequence a(&cache), b(&cache);
  REQUIRE(a.Reserve(6).ok());
  for (const int32_t page : a.row(1)) CHECK(Scores(cache, page) == zeros);
  a.Commit(6);
  const int32_t shared = a.row(1)[1];
  SetScore(cache, shared, 0, 1.5f);
  SetScore(cache, shared, 1, 2.5f);
  b.ForkFrom(a);
  CHECK(Scores(cache, b.row(1)[1]) == some);
  REQUIRE(b.Reserve(1).ok());  // copy on write
  const int32_t own = b.row(1)[1];
  REQUIRE(own != shared);
  CHECK(Scores(cache, own) == some);
  SetScore(cache, own, 2, 7);
  CHECK(Scores(cache, shared) == some);
  b.Commit(1);
  REQUIRE(b.Rollback(3).ok());  // into the page before: the copy is given back
  REQUIRE(b.Reserve(3).ok());
  CHECK(Scores(cache, b.row(1)[1]) == zeros);
  REQUIRE(a.Rollback(1).ok());  // within a page: what is left of it stays
  CHECK(Scores(cache, a.row(1)[1]) == some);
}

TEST_CASE("planes: scratch starts over in a copy") {
  const KvInfo kv =
      Declared(R"({"name": "scores", "dtype": "f32", "shape": [4], "fill": -1, "copy": "fill"})");
  auto created = KvCache::Create(kv, 12, 2);
  REQUIRE(created.ok());
  KvCache& cache = created.value();
  Sequence a(&cache), b(&cache);
  REQUIRE(a.Reserve(2).ok());
  a.Commit(2);
  SetScore(cache, a.row(0)[0], 1, 5);
  b.ForkFrom(a);
  REQUIRE(b.Reserve(1).ok());
  CHECK(Scores(cache, b.row(0)[0]) == std::vector<float>(4, -1.0f));
  CHECK(Scores(cache, a.row(0)[0]) == std::vector<float>{-1, 5, -1, -1});
}

TEST_CASE("planes: fills are exact in every dtype") {
  struct Case {
    const char *dtype, *fill;
    uint64_t bits;
  };
  const Case cases[] = {
      {"f32", "0.5", 0x3f000000},
      {"f32", "-0.0", 0x80000000},
      {"f32", "-3.4028234663852886e38", 0xff7fffff},
      {"f32", "1.401298464324817e-45", 1},
      {"f32", "1.1754943508222875e-38", 0x00800000},
      {"f16", "65504", 0x7bff},
      {"f16", "-2", 0xc000},
      {"f16", "5.960464477539063e-08", 1},
      {"bf16", "1.0078125", 0x3f81},
      {"bf16", "-1", 0xbf80},
      {"i8", "-128", 0x80},
      {"i32", "-2", 0xfffffffe},
      {"i64", "9223372036854775807", 0x7fffffffffffffff},
  };
  for (const Case& c : cases) {
    CAPTURE(c.dtype);
    CAPTURE(c.fill);
    const KvInfo kv = Declared(std::string(R"({"name": "p", "shape": [3, 5], "dtype": ")") +
                               c.dtype + R"(", "fill": )" + c.fill + "}");
    const auto size = static_cast<size_t>(DTypeBytes(kv.planes[2].dtype));
    auto created = KvCache::Create(kv, 4, 1);
    REQUIRE(created.ok());
    Sequence a(&created.value());
    REQUIRE(a.Reserve(1).ok());
    const auto page = PageOf(created.value(), "p", a.row(1)[0]);
    REQUIRE(page.size() == 15 * size);
    for (size_t i = 0; i < 15; ++i) CHECK(std::memcmp(&page[i * size], &c.bits, size) == 0);
  }
}

TEST_CASE("planes: a copied page has every byte of the old one, and no neighbour changes") {
  const KvInfo kv = Declared(R"({"name": "b", "dtype": "i8", "shape": [7]},
                                {"name": "n", "dtype": "i64", "shape": [1, 2, 3]})");
  auto created = KvCache::Create(kv, 12, 2);
  REQUIRE(created.ok());
  KvCache& cache = created.value();
  constexpr std::array kNames = {"k_pages", "v_pages", "b", "n"};
  const auto byte = [](size_t plane, size_t i, int32_t page) {
    return static_cast<std::byte>(i * 7 + static_cast<size_t>(page) * 3 + plane);
  };
  for (int32_t page = 0; page < cache.pages(); ++page) {
    for (size_t p = 0; p < kNames.size(); ++p) {
      const auto bytes = PageOf(cache, kNames[p], page);
      for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = byte(p, i, page);
    }
  }
  const auto holds = [&](int32_t page, int32_t what) {
    for (size_t p = 0; p < kNames.size(); ++p) {
      const auto bytes = PageOf(cache, kNames[p], page);
      for (size_t i = 0; i < bytes.size(); ++i) {
        if (bytes[i] != byte(p, i, what)) return false;
      }
    }
    return true;
  };
  Sequence a(&cache), b(&cache);
  REQUIRE(a.Reserve(6).ok());
  a.Commit(6);
  b.ForkFrom(a);
  REQUIRE(b.Reserve(1).ok());
  std::set<int32_t> copies;
  for (int64_t row = 0; row < cache.rows(); ++row) {
    CHECK(holds(b.row(row)[1], a.row(row)[1]));
    copies.insert(b.row(row)[1]);
  }
  for (int32_t page = 0; page < cache.pages(); ++page) {
    if (!copies.contains(page)) CHECK(holds(page, page));
  }
}

}  // namespace
}  // namespace fretsaw
