// Sampler: greedy rules, refusals, reproducible draws and their frequencies. The rules of the
// distribution itself are compared with transformers in tests/runtime_py/test_sampler.py.
#include "sampler/sampler.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>

namespace fretsaw {
namespace {

Sampler Make(const SamplingOptions& options, int64_t vocab = 4) {
  auto sampler = Sampler::Create(options, vocab);
  REQUIRE(sampler.ok());
  return std::move(sampler).value();
}

TEST_CASE("prng: the published stream of seed 1234567") {
  SplitMix64 random(1234567);
  CHECK(random.Next() == 6457827717110365317u);
  CHECK(random.Next() == 3203168211198807973u);
  CHECK(random.Next() == 9817491932198370423u);
}

TEST_CASE("sampler: greedy takes the first of the best") {
  const float logits[] = {1, 3, 3, 2};
  CHECK(Make({}).Pick(logits).value() == 1);
}

TEST_CASE("sampler: the penalty divides what is positive and multiplies what is negative") {
  SamplingOptions options;
  options.repetition_penalty = 2;
  Sampler sampler = Make(options);
  const float positive[] = {4, 3, 1, 1}, negative[] = {-1.5f, -2, -9, -9};
  CHECK(sampler.Pick(positive).value() == 0);
  sampler.Saw(0);
  CHECK(sampler.Pick(positive).value() == 1);
  CHECK(sampler.Pick(negative).value() == 1);
}

TEST_CASE("sampler: logits that are not numbers are an error") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float inf = std::numeric_limits<float>::infinity();
  SamplingOptions warm;
  warm.temperature = 1;
  const float none[] = {nan, nan, -inf, nan}, some[] = {1, nan, 2, 3}, huge[] = {1, inf, 2, 3};
  CHECK(Make({}).Pick(none).error().status == Status::kInternal);
  CHECK(Make(warm).Pick(none).error().status == Status::kInternal);
  CHECK(Make(warm).Pick(some).error().status == Status::kInternal);
  CHECK(Make(warm).Pick(huge).error().status == Status::kInternal);
}

TEST_CASE("sampler: draws follow the distribution and the seed") {
  SamplingOptions options;
  options.temperature = 1;
  options.seed = 5;
  const float logits[] = {0, std::log(2.0f), std::log(5.0f),
                          -std::numeric_limits<float>::infinity()};
  Sampler a = Make(options), b = Make(options);
  constexpr int kDraws = 80000;
  int counts[4] = {};
  for (int i = 0; i < kDraws; ++i) {
    const int32_t token = a.Pick(logits).value();
    CHECK(token == b.Pick(logits).value());
    ++counts[token];
  }
  const double expected[] = {1 / 8.0, 2 / 8.0, 5 / 8.0, 0};
  for (int i = 0; i < 4; ++i) {
    const double sigma = std::sqrt(expected[i] * (1 - expected[i]) * kDraws);
    CHECK(std::abs(counts[i] - expected[i] * kDraws) <= 4 * sigma);
  }
}

TEST_CASE("sampler: impossible options are refused by name") {
  const double nan = std::nan("");
  const auto message = [](const SamplingOptions& options) {
    return CheckSampling(options).error().message;
  };
  CHECK(message({.temperature = -0.5}).find("temperature: -0.5") == 0);
  CHECK(message({.temperature = nan}).find("temperature") == 0);
  CHECK(message({.top_k = -1}).find("top-k") == 0);
  CHECK(message({.top_p = 0}).find("top-p") == 0);
  CHECK(message({.top_p = 1.01}).find("top-p") == 0);
  CHECK(message({.top_p = nan}).find("top-p") == 0);
  CHECK(message({.min_p = -0.1}).find("min-p") == 0);
  CHECK(message({.repetition_penalty = 0}).find("repetition-penalty") == 0);
  CHECK(CheckSampling({}).ok());
}

}  // namespace
}  // namespace fretsaw
