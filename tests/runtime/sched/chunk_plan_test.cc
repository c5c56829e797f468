// DividePrefill: exact by hand, and its promises over random loads.
#include "sched/chunk_plan.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <numeric>

#include "sampler/prng.h"

namespace fretsaw {
namespace {

using Chunks = std::vector<int64_t>;

TEST_CASE("chunk plan: by hand") {
  CHECK(DividePrefill(512, Chunks{}) == Chunks{});
  CHECK(DividePrefill(512, Chunks{2000}) == Chunks{512});
  CHECK(DividePrefill(512, Chunks{2000, 16}) == Chunks{496, 16});
  CHECK(DividePrefill(512, Chunks{2000, 2000}) == Chunks{256, 256});
  CHECK(DividePrefill(512, Chunks{2000, 1000, 16, 100}) == Chunks{256, 140, 16, 100});
  CHECK(DividePrefill(512, Chunks{3, 2000}) == Chunks{3, 509});
  CHECK(DividePrefill(1, Chunks{5, 1, 1}) == Chunks{1, 0, 0});
  CHECK(DividePrefill(3, Chunks{5, 9, 8, 7}) == Chunks{2, 0, 0, 1});
  CHECK(DividePrefill(100, Chunks{1, 2, 3}) == Chunks{1, 2, 3});
}

TEST_CASE("chunk plan: spends the budget, and nobody gets more than is left of his prompt") {
  SplitMix64 random(1);
  for (int i = 0; i < 20000; ++i) {
    Chunks remaining(1 + random.Next() % 9);
    for (int64_t& r : remaining) r = 1 + static_cast<int64_t>(random.Next() % 40);
    const auto budget = 1 + static_cast<int64_t>(random.Next() % 120);
    const Chunks chunks = DividePrefill(budget, remaining);
    REQUIRE(chunks.size() == remaining.size());
    for (size_t k = 0; k < chunks.size(); ++k) {
      CHECK(chunks[k] >= 0);
      CHECK(chunks[k] <= remaining[k]);
    }
    const auto sum = std::accumulate(remaining.begin(), remaining.end(), int64_t{0});
    CHECK(std::accumulate(chunks.begin(), chunks.end(), int64_t{0}) == std::min(budget, sum));
    CHECK(chunks[0] >= std::min(remaining[0], (budget + 1) / 2));
  }
}

TEST_CASE("chunk plan: pieces end at blocks, and none is a single token") {
  const ChunkRule rule{64, false};
  CHECK(NextChunk(rule, 0, 1, 512) == 1);  // a prompt of one token
  CHECK(NextChunk(rule, 0, 512, 512) == 512);
  CHECK(NextChunk(rule, 0, 513, 512) == 448);  // 65 are left, not one
  CHECK(NextChunk(rule, 0, 514, 512) == 512);
  CHECK(NextChunk(rule, 0, 2000, 500) == 448);
  CHECK(NextChunk(rule, 10, 2000, 128) == 118);
  CHECK(NextChunk(rule, 63, 2000, 70) == 65);  // one token would end at a block too
  CHECK(NextChunk(rule, 63, 66, 65) == 0);
  CHECK(NextChunk(rule, 0, 100, 63) == 0);
  CHECK(NextChunk({1, false}, 7, 100, 63) == 63);
  CHECK(NextChunk({1, true}, 0, 100, 99) == 0);
  CHECK(NextChunk({64, true}, 0, 100, 100) == 100);
}

TEST_CASE("chunk plan: two blocks are enough for a piece, wherever it starts") {
  for (const int64_t align : {2, 3, 4, 64}) {
    for (int64_t at = 0; at < 2 * align; ++at) {
      for (int64_t remaining = 1; remaining < 5 * align; ++remaining) {
        for (int64_t most = 2 * align; most < 4 * align; ++most) {
          const int64_t count = NextChunk({align, false}, at, remaining, most);
          CAPTURE(align);
          CAPTURE(at);
          CAPTURE(remaining);
          CAPTURE(most);
          if (count < 1 || count > std::min(most, remaining)) FAIL("out of range");
          if (count < remaining && (at + count) % align != 0) FAIL("not at a block");
          if (remaining > 1 && (count == 1 || remaining - count == 1)) FAIL("a single token");
        }
      }
    }
  }
}

TEST_CASE("chunk plan: blocks by hand") {
  const ChunkRule rule{64, false};
  CHECK(DividePrefill(512, Chunks{2000}, rule) == Chunks{512});
  CHECK(DividePrefill(512, Chunks{2000, 16}, rule) == Chunks{448, 16});
  CHECK(DividePrefill(512, Chunks{2000, 2000}, rule) == Chunks{256, 256});
  CHECK(DividePrefill(128, Chunks{65, 2000}, rule) == Chunks{65, 0});
  CHECK(DividePrefill(100, Chunks{2000, 30, 31}, rule) == Chunks{64, 30, 0});
  // Nine others at 29 tokens each would all get nothing.
  CHECK(DividePrefill(512, Chunks(10, 2000), rule) == Chunks{256, 128, 128, 0, 0, 0, 0, 0, 0, 0});
  const ChunkRule whole{64, true};
  CHECK(DividePrefill(512, Chunks{512, 16}, whole) == Chunks{512, 0});
  CHECK(DividePrefill(512, Chunks{300, 200, 213, 12}, whole) == Chunks{300, 200, 0, 12});
}

TEST_CASE("chunk plan: with blocks nothing that could be used is left, over random loads") {
  SplitMix64 random(2);
  for (int i = 0; i < 20000; ++i) {
    Chunks remaining(1 + random.Next() % 9);
    for (int64_t& r : remaining) r = 1 + static_cast<int64_t>(random.Next() % 40);
    const ChunkRule rule{4, random.Next() % 4 == 0};
    const auto budget = (rule.whole ? remaining[0] : 5) + static_cast<int64_t>(random.Next() % 120);
    const Chunks chunks = DividePrefill(budget, remaining, rule);
    const int64_t left = budget - std::accumulate(chunks.begin(), chunks.end(), int64_t{0});
    CHECK(left >= 0);
    CHECK(chunks[0] > 0);
    for (size_t k = 0; k < chunks.size(); ++k) {
      const int64_t rest = remaining[k] - chunks[k];
      CHECK(rest >= 0);
      if (rest == 0) continue;
      CHECK(chunks[k] % 4 == 0);
      if (chunks[k] > 0) CHECK(rest > 1);
      if (rule.whole) CHECK(chunks[k] == 0);
      CHECK(NextChunk(rule, chunks[k], rest, left) == 0);
    }
  }
}

}  // namespace
}  // namespace fretsaw
