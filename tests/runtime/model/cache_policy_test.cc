// CachePolicy: what rows hold is a function of the tokens seen, whatever steps they came in.
#include "model/cache_policy.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <limits>
#include <memory>
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

// A sequence, and every token that it has seen.
struct Windowed {
  explicit Windowed(KvCache* cache) : sequence(cache) {}

  float* At(const KvCache& cache, int64_t row, int64_t slot) {
    const int32_t page = sequence.row(row)[static_cast<size_t>(slot / kSlots)];
    return static_cast<float*>(cache.planes()[0]) + page * kSlots + slot % kSlots;
  }

  Sequence sequence;
  std::vector<int32_t> tokens;
};

TEST_CASE("policy: forks and rollbacks of windows keep every slot's contents") {
  constexpr int64_t kSinks = 3, kWindow = 7;
  SplitMix64 random(5);
  const auto below = [&](int64_t n) {
    return static_cast<int64_t>(random.Next() % static_cast<uint64_t>(n));
  };
  auto created = KvCache::Create(WindowKv(kSinks, kWindow), 60, 4);
  REQUIRE(created.ok());
  KvCache& cache = created.value();
  {
    std::vector<std::unique_ptr<Windowed>> all;
    for (int i = 0; i < 4; ++i) all.push_back(std::make_unique<Windowed>(&cache));
    int32_t next = 0;
    int64_t refused = 0, rolled = 0;
    for (int i = 0; i < 5000; ++i) {
      Windowed& live = *all[static_cast<size_t>(below(4))];
      Windowed& other = *all[static_cast<size_t>(below(4))];
      const int64_t seen = std::ssize(live.tokens);
      switch (below(8)) {
        case 0:
          live.sequence.ForkFrom(other.sequence);
          live.tokens = other.tokens;
          break;
        case 1:
          if (seen > 40 || below(4) == 0) {
            live.sequence.Reset();
            live.tokens.clear();
          }
          break;
        case 2: {
          const int64_t back = below(seen + 1), left = seen - back;
          bool lost = false;  // a token that was held after so many, or came since, was dropped
          for (int64_t t = 0; t < seen; ++t) {
            const bool had = t >= left || testing::Held(t, left, kSinks, kWindow, kSlots);
            lost = lost || (had && !testing::Held(t, seen, kSinks, kWindow, kSlots));
          }
          REQUIRE(live.sequence.Rollback(back).ok() == !lost);
          ++(lost ? refused : rolled);
          if (!lost) live.tokens.resize(static_cast<size_t>(left));
          break;
        }
        default: {
          const int64_t most = std::min(live.sequence.room(), live.sequence.step_room());
          if (most == 0) break;
          const int64_t count = 1 + below(std::min<int64_t>(most, 9));
          REQUIRE(live.sequence.Reserve(count).ok());
          for (int64_t row = 0; row < cache.rows(); ++row) {
            const int64_t len = live.sequence.lens()[static_cast<size_t>(row)];
            for (int64_t t = 0; t < count; ++t) {
              *live.At(cache, row, len + t) = static_cast<float>(4 * (next + t) + row);
            }
          }
          for (int64_t t = 0; t < count; ++t) live.tokens.push_back(next++);
          live.sequence.Commit(count);
        }
      }
      std::set<int32_t> used;
      for (const auto& one : all) {
        const auto want = HeldPositions(std::ssize(one->tokens), kSinks, kWindow, kSlots);
        for (int64_t row = 0; row < cache.rows(); ++row) {
          REQUIRE(Positions(one->sequence, row) == want);
          for (size_t slot = 0; slot < want.size(); ++slot) {
            const int32_t token = one->tokens[static_cast<size_t>(want[slot])];
            REQUIRE(*one->At(cache, row, static_cast<int64_t>(slot)) ==
                    static_cast<float>(4 * token + row));
          }
          const auto pages = one->sequence.row(row);
          used.insert(pages.begin(), pages.end());
        }
      }
      REQUIRE(cache.used_pages() == std::ssize(used));
    }
    CHECK(refused > 50);
    CHECK(rolled > 50);
  }
  CHECK(cache.free_pages() == cache.pages());
}

}  // namespace
}  // namespace fretsaw
