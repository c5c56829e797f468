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

}  // namespace
}  // namespace fretsaw
