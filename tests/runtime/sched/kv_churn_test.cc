// Random admit, append, fork, rollback, share and end against a plain model of the contents and of
// the positions beside them.
#include <doctest/doctest.h>

#include <memory>
#include <set>

#include "sampler/prng.h"
#include "sched/fake_program.h"
#include "sched/prefix_index.h"

namespace fretsaw {
namespace {

using testing::FakeKv;
using testing::kPage;
using Ids = std::vector<int32_t>;

constexpr int64_t kContext = 24;
constexpr int64_t kPages = 4 * 14;

struct Churn {
  struct Live {
    explicit Live(KvCache* cache) : sequence(cache) {}
    Sequence sequence;
    Ids tokens;  // the model: what must be in the cache
    PrefixCursor cursor;
  };

  float* At(const Live& live, int64_t row, int64_t token) {
    const int32_t page = live.sequence.row(row)[static_cast<size_t>(token / kPage)];
    return static_cast<float*>(cache.planes()[0]) + page * kPage + token % kPage;
  }

  int32_t* PositionAt(const Live& live, int64_t row, int64_t token) {
    const int32_t page = live.sequence.row(row)[static_cast<size_t>(token / kPage)];
    return cache.positions() + page * kPage + token % kPage;
  }

  static int32_t Moved(int64_t row, int64_t token) {
    return static_cast<int32_t>(1000 * (row + 1) + 3 * token);
  }

  // What a step does: reserve, write into every row, commit.
  bool Append(Live* live, const Ids& tokens) {
    index.Reclaim(live->sequence.Wanted(std::ssize(tokens)));
    if (!live->sequence.Reserve(std::ssize(tokens))) return false;
    const int64_t before = live->sequence.num_computed_tokens();
    for (int64_t row = 0; row < cache.rows(); ++row) {
      for (int64_t i = 0; i < std::ssize(tokens); ++i) {
        *At(*live, row, live->sequence.num_computed_tokens() + i) =
            static_cast<float>(tokens[static_cast<size_t>(i)] * 8 + row);
      }
    }
    live->sequence.Commit(std::ssize(tokens));
    for (int64_t row = 0; row < cache.rows(); ++row) {
      for (int64_t i = before; i < live->sequence.num_computed_tokens(); ++i) {
        REQUIRE(live->sequence.position(row, i) == i);
        // From here on as in a row that tokens were taken out of: positions that no slot number and
        // no other row has.
        *PositionAt(*live, row, i) = Moved(row, i);
      }
    }
    live->tokens.insert(live->tokens.end(), tokens.begin(), tokens.end());
    return true;
  }

  void Check() {
    std::set<int32_t> used;
    for (const auto& live : all) {
      const Sequence& sequence = live->sequence;
      REQUIRE(sequence.num_computed_tokens() == std::ssize(live->tokens));
      for (int64_t row = 0; row < cache.rows(); ++row) {
        REQUIRE(std::ssize(sequence.row(row)) >= cache.ColumnsFor(sequence.num_computed_tokens()));
        for (int64_t i = 0; i < sequence.num_computed_tokens(); ++i) {
          REQUIRE(*At(*live, row, i) ==
                  static_cast<float>(live->tokens[static_cast<size_t>(i)] * 8 + row));
          REQUIRE(sequence.position(row, i) == Moved(row, i));
        }
        for (const int32_t page : sequence.row(row)) used.insert(page);
      }
    }
    REQUIRE(cache.used_pages() == std::ssize(used));
    REQUIRE(cache.used_pages() + cache.free_pages() <= cache.pages());
    REQUIRE(cache.pages() - cache.free_pages() - cache.used_pages() <= 4 * index.entries());
  }

  KvCache cache = std::move(KvCache::CreateWithPages(FakeKv(), kContext, 8, kPages)).value();
  PrefixIndex index{&cache};
  std::vector<std::unique_ptr<Live>> all;
};

TEST_CASE("kv: random churn keeps every sequence's contents and positions and loses no page") {
  for (uint64_t seed = 0; seed < 20; ++seed) {
    Churn churn;
    SplitMix64 random(seed);
    const auto below = [&](int64_t n) {
      return static_cast<int64_t>(random.Next() % static_cast<uint64_t>(n));
    };
    int64_t appended = 0, forked = 0, refused = 0, found = 0;
    for (int i = 0; i < 3000; ++i) {
      if (churn.all.empty() || (below(6) == 0 && churn.all.size() < 8)) {
        churn.all.push_back(std::make_unique<Churn::Live>(&churn.cache));
      }
      Churn::Live& live = *churn.all[static_cast<size_t>(below(std::ssize(churn.all)))];
      switch (below(8)) {
        case 0: {  // fork
          Churn::Live& to = *churn.all[static_cast<size_t>(below(std::ssize(churn.all)))];
          to.sequence.ForkFrom(live.sequence);
          to.tokens = live.tokens;
          to.cursor = live.cursor;
          ++forked;
          break;
        }
        case 1: {  // rollback
          const int64_t n = below(live.sequence.num_computed_tokens() + 1);
          REQUIRE(live.sequence.Rollback(n).ok());
          live.tokens.resize(live.tokens.size() - static_cast<size_t>(n));
          if (live.cursor.column * kPage > live.sequence.num_computed_tokens()) {
            // Start over along what is left, as nothing of it needs to be in the index any more.
            live.sequence.Reset();
            live.tokens.clear();
            live.cursor = {};
          }
          break;
        }
        case 2:  // end
          std::swap(churn.all[static_cast<size_t>(below(std::ssize(churn.all)))], churn.all.back());
          churn.all.pop_back();
          break;
        case 3: {  // share a prefix
          if (live.sequence.num_computed_tokens() > 0) break;
          live.cursor = {};
          const Ids prompt(static_cast<size_t>(1 + below(kContext)), 1 + below(2));
          found += churn.index.Extend(prompt, std::ssize(prompt), &live.sequence, &live.cursor);
          live.tokens.assign(prompt.begin(), prompt.begin() + live.sequence.num_computed_tokens());
          break;
        }
        default: {  // append, and tell the index
          if (live.sequence.room() == 0) break;
          const Ids tokens(static_cast<size_t>(1 + below(live.sequence.room())), 1 + below(2));
          if (churn.Append(&live, tokens)) {
            ++appended;
            if (below(2) == 0) churn.index.Publish(live.tokens, &live.sequence, &live.cursor);
          } else {
            ++refused;
          }
        }
      }
      churn.Check();
    }
    CHECK(appended > 100);
    CHECK(forked > 100);
    CHECK(found > 0);
    CHECK(refused > 0);
    churn.all.clear();
    CHECK(churn.cache.used_pages() == 0);
    churn.index.Reclaim(kPages);
    CHECK(churn.cache.free_pages() == kPages);
    CHECK(churn.index.entries() == 0);
  }
}

}  // namespace
}  // namespace fretsaw
