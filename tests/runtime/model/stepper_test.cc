// Stepper: the arguments it makes for mixed batches, its refusals, and that a step allocates
// nothing.
#include "model/stepper.h"

#include <doctest/doctest.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "model/plane_case.h"

namespace {
std::atomic<int64_t> allocations{0};
}

// Counts every allocation of this test binary through the usual operators. Not inlined: the
// compiler would see malloc under new and free under delete apart, and call them mismatched.
[[gnu::noinline]] void* operator new(size_t size) {
  allocations.fetch_add(1, std::memory_order_relaxed);
  if (void* memory = std::malloc(size == 0 ? 1 : size)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void* operator new(size_t size, const std::nothrow_t&) noexcept {
  allocations.fetch_add(1, std::memory_order_relaxed);
  return std::malloc(size == 0 ? 1 : size);
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, size_t) noexcept { std::free(memory); }

namespace fretsaw {
namespace {

constexpr int64_t kVocab = 16;

KvInfo SmallKv() { return testing::PlainKv(2, 2, 1, 1, 4); }

// Keeps the arguments of the last step and returns zeros.
class Recorder : public Program {
 public:
  Result<std::span<const float>> Step(const StepArgs& args) override {
    if (fail) return Error{Status::kInternal, "made to fail"};
    last = args;
    return std::span<const float>(zeros.data(), args.rows.size() * static_cast<size_t>(kVocab));
  }
  StepArgs last;
  bool fail = false;
  std::vector<float> zeros = std::vector<float>(16 * kVocab, 0.0f);
};

struct Fixture {
  explicit Fixture(int64_t sequences = 2, bool empty_rows = false)
      : cache(std::move(KvCache::Create(SmallKv(), 12, sequences)).value()),
        recorder(new Recorder),
        stepper(SmallKv(), {"step", 8, empty_rows}, kVocab, std::unique_ptr<Program>(recorder)) {
    stepper.Prepare(cache);
  }
  KvCache cache;
  Recorder* recorder;
  Stepper stepper;
};

std::vector<int32_t> Copy(std::span<const int32_t> s) { return {s.begin(), s.end()}; }

TEST_CASE("stepper: a mixed batch is laid out as the program's page says") {
  Fixture f;
  Sequence a(&f.cache), b(&f.cache);
  const int32_t five[] = {1, 2, 3, 4, 5}, two[] = {6, 7}, one[] = {8};
  const BatchEntry first{&a, five, LogitRows::kNone};
  REQUIRE(f.stepper.Step(f.cache, {&first, 1}).ok());
  const BatchEntry batch[] = {{&a, one, LogitRows::kLast}, {&b, two, LogitRows::kAll}};
  auto logits = f.stepper.Step(f.cache, batch);
  REQUIRE(logits.ok());
  CHECK(logits.value().size() == 3 * kVocab);
  const StepArgs& args = f.recorder->last;
  using Ids = std::vector<int32_t>;
  CHECK(Copy(args.tokens) == Ids{8, 6, 7});
  CHECK(Copy(args.positions) == Ids{5, 0, 1});
  CHECK(Copy(args.cu) == Ids{0, 1, 3});
  CHECK(Copy(args.rows) == Ids{0, 1, 2});
  CHECK(Copy(args.lens) == Ids{5, 5, 0, 0, 5, 5, 0, 0});  // [layer][sequence][head]
  CHECK(args.max_pages == 2);
  REQUIRE(args.table.size() == 2 * 2 * 2 * 2);
  for (int layer = 0; layer < 2; ++layer) {
    for (int head = 0; head < 2; ++head) {
      const auto at = [&](int sequence, int page) {
        return args.table[static_cast<size_t>(((layer * 2 + sequence) * 2 + head) * 2 + page)];
      };
      CHECK(at(0, 0) == a.row(layer * 2 + head)[0]);
      CHECK(at(0, 1) == a.row(layer * 2 + head)[1]);
      CHECK(at(1, 0) == b.row(layer * 2 + head)[0]);
      CHECK(at(1, 1) == 0);
    }
  }
  CHECK(a.num_computed_tokens() == 6);
  CHECK(b.num_computed_tokens() == 2);
}

TEST_CASE("stepper: a step is dense where every sequence of it is") {
  KvCache cache = std::move(KvCache::Create(SmallKv(), 24, 2)).value();
  auto* recorder = new Recorder;
  ProgramInfo info{"step", 8};
  info.dense = DenseSteps{"dense", 4, false, true};
  Stepper stepper(SmallKv(), info, kVocab, std::unique_ptr<Program>(recorder));
  stepper.Prepare(cache);
  Sequence a(&cache), b(&cache);
  const std::vector<int32_t> ids(8, 1);
  const auto dense = [&](size_t first, size_t second) {
    std::vector<BatchEntry> batch;
    if (first > 0) batch.push_back({&a, std::span(ids).first(first), LogitRows::kLast});
    if (second > 0) batch.push_back({&b, std::span(ids).first(second), LogitRows::kLast});
    REQUIRE(stepper.Step(cache, batch).ok());
    return recorder->last.dense;
  };
  CHECK(dense(4, 0));        // ends where lists begin to matter
  CHECK(dense(1, 2));        // a decodes, b is short
  CHECK_FALSE(dense(2, 1));  // a reads on, at 7
  CHECK(dense(1, 1));        // both decode
  CHECK_FALSE(dense(1, 2));  // b would end at 6
}

TEST_CASE("stepper: no wanted rows means none, or one that is thrown away") {
  for (const bool empty_rows : {false, true}) {
    Fixture f(1, empty_rows);
    Sequence a(&f.cache);
    const int32_t tokens[] = {1, 2};
    const BatchEntry entry{&a, tokens, LogitRows::kNone};
    auto logits = f.stepper.Step(f.cache, {&entry, 1});
    REQUIRE(logits.ok());
    CHECK(logits.value().empty());
    CHECK(f.recorder->last.rows.size() == (empty_rows ? 0 : 1));
  }
}

TEST_CASE("stepper: refusals leave the sequence as it was") {
  Fixture f(1);
  Sequence a(&f.cache);
  const auto step = [&](std::vector<int32_t> tokens) {
    const BatchEntry entry{&a, tokens, LogitRows::kLast};
    return f.stepper.Step(f.cache, {&entry, 1}).error();
  };
  CHECK(step({}).status == Status::kBadInput);
  CHECK(step({1, 16}).message == "token id 16 is outside the vocabulary of 16");
  CHECK(step({-1}).status == Status::kBadInput);
  CHECK(step(std::vector<int32_t>(9, 1)).status == Status::kUsage);
  f.recorder->fail = true;
  CHECK(step({1, 2}).message == "made to fail");
  CHECK(a.num_computed_tokens() == 0);
  CHECK(a.lens()[0] == 0);
  CHECK(f.stepper.Step(f.cache, {}).error().status == Status::kUsage);
}

TEST_CASE("stepper: a step allocates nothing of ours") {
  Fixture f;
  Sequence a(&f.cache), b(&f.cache);
  const int32_t tokens[] = {1, 2, 3};
  const auto before = allocations.load();
  for (int i = 0; i < 4; ++i) {
    const BatchEntry batch[] = {{&a, tokens, LogitRows::kLast}, {&b, tokens, LogitRows::kAll}};
    REQUIRE(f.stepper.Step(f.cache, batch).ok());
  }
  CHECK(allocations.load() == before);
  const auto* one = new int(1);  // the counter counts
  CHECK(allocations.load() == before + 1);
  delete one;
}

}  // namespace
}  // namespace fretsaw
