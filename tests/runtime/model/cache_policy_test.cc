// CachePolicy: what rows hold is a function of the tokens seen, whatever steps they came in.
#include "model/cache_policy.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <limits>
#include <set>
#include <vector>

#include "model/kv_cache.h"
#include "model/plane_case.h"
#include "model/window_case.h"
#include "sampler/prng.h"

namespace fretsaw {
namespace {

using testing::HeldPositions;

constexpr int64_t kSlots = 4;  // of a page

KvInfo WindowKv(int64_t sinks, int64_t window) {
  KvInfo kv = testing::PlainKv(2, 2, 1, 1, kSlots);
  kv.policy = WindowPolicy{sinks, window};
  return kv;
}

std::vector<int32_t> Positions(const Sequence& sequence, int64_t row) {
  std::vector<int32_t> positions;
  for (int64_t i = 0; i < sequence.lens()[static_cast<size_t>(row)]; ++i) {
    positions.push_back(sequence.position(row, i));
  }
  return positions;
}

void Append(Sequence* sequence, int64_t tokens) {
  REQUIRE(sequence->Reserve(tokens).ok());
  sequence->Commit(tokens);
}

TEST_CASE("policy: full keeps everything") {
  const auto policy = MakeCachePolicy(testing::PlainKv(2, 2, 1, 1, kSlots));
  CHECK(policy->bound(0) == 0);
  CHECK(policy->bound(1000) == 1000);
  CHECK(policy->step_end(7) == std::numeric_limits<int64_t>::max());
  CHECK(policy->Evicted(0, 1000, 1000).count == 0);
  CHECK(policy->keeps_prefix());
  CHECK(policy->can_roll_back(1000, 0));
  CHECK(MostColumns(*policy, kSlots, 9) == 3);
}

TEST_CASE("policy: a window and sinks, in any steps, by pages") {
  SplitMix64 random(1);
  constexpr WindowPolicy kCases[] = {{0, 1},  {0, 4}, {1, 4},   {4, 8},   {5, 6},
                                     {3, 13}, {8, 1}, {100, 3}, {4, 1000}};
  for (const WindowPolicy& window_case : kCases) {
    const int64_t sinks = window_case.sinks, window = window_case.window;
    CAPTURE(sinks);
    CAPTURE(window);
    const KvInfo kv = WindowKv(sinks, window);
    const auto policy = MakeCachePolicy(kv);
    auto created = KvCache::Create(kv, 150, 1);
    REQUIRE(created.ok());
    KvCache& cache = created.value();
    CHECK(cache.pages_per_row() == MostColumns(*policy, kSlots, 150));
    for (int round = 0; round < 10; ++round) {
      Sequence sequence(&cache);
      int64_t most = 0;
      while (sequence.room() > 0) {
        const int64_t limit = std::min({sequence.room(), sequence.step_room(), int64_t{20}});
        REQUIRE(limit > 0);
        const auto tokens = 1 + static_cast<int64_t>(random.Next() % static_cast<uint64_t>(limit));
        REQUIRE(sequence.Reserve(tokens).ok());
        most = std::max<int64_t>(most, sequence.lens()[0] + tokens);
        sequence.Commit(tokens);
        const int64_t seen = sequence.num_computed_tokens();
        const auto want = HeldPositions(seen, sinks, window, kSlots);
        std::set<int32_t> pages;
        for (int64_t row = 0; row < cache.rows(); ++row) {
          REQUIRE(Positions(sequence, row) == want);
          REQUIRE(std::ssize(sequence.row(row)) == cache.ColumnsFor(std::ssize(want)));
          pages.insert(sequence.row(row).begin(), sequence.row(row).end());
        }
        REQUIRE(sequence.longest_row() == cache.ColumnsFor(std::ssize(want)));
        REQUIRE(std::ssize(pages) == sequence.pages());
        REQUIRE(cache.used_pages() == sequence.pages());
        REQUIRE(most <= policy->bound(seen));
      }
      CHECK(most == policy->bound(150));  // the bound is reached: nothing is reserved in vain
    }
    CHECK(cache.free_pages() == cache.pages());
  }
}

TEST_CASE("policy: a step may not run past the point at which a page is dropped") {
  auto created = KvCache::Create(WindowKv(4, 6), 100, 1);
  REQUIRE(created.ok());
  Sequence sequence(&created.value());
  CHECK(sequence.step_room() == 4 + 6 + kSlots);
  CHECK(sequence.Reserve(15).error().message ==
        "15 tokens in one step, at most 14 before the cache evicts some");
  CHECK(sequence.pages() == 0);
  Append(&sequence, 3);
  CHECK(sequence.step_room() == 11);
  Append(&sequence, 11);
  CHECK(sequence.num_computed_tokens() == 14);
  CHECK(sequence.lens()[3] == 10);
  CHECK(sequence.step_room() == kSlots);
}

TEST_CASE("policy: rollback goes as far back as nothing was dropped") {
  auto created = KvCache::Create(WindowKv(4, 6), 100, 2);
  REQUIRE(created.ok());
  KvCache& cache = created.value();
  Sequence a(&cache), b(&cache);
  Append(&a, 14);
  Append(&a, 3);
  CHECK(a.Rollback(4).error().message ==
        "cannot forget 4 tokens of 17: the cache has evicted some that were there before them");
  CHECK(a.Rollback(18).error().message == "cannot forget 18 tokens of 17");
  CHECK(a.num_computed_tokens() == 17);
  b.ForkFrom(a);
  REQUIRE(b.Rollback(3).ok());
  CHECK(Positions(b, 1) == HeldPositions(14, 4, 6, kSlots));
  Append(&b, 4);  // drops a page that is the other's too
  CHECK(Positions(b, 1) == HeldPositions(18, 4, 6, kSlots));
  CHECK(Positions(a, 1) == HeldPositions(17, 4, 6, kSlots));
  CHECK(b.row(1)[0] == a.row(1)[0]);
  a.Reset();
  CHECK(cache.used_pages() == b.pages());
  CHECK(Positions(b, 1) == HeldPositions(18, 4, 6, kSlots));
}

}  // namespace
}  // namespace fretsaw
