// Encoder: how texts are laid out in steps, and its refusals; Truncate: what is cut.
#include "model/encoder.h"

#include <doctest/doctest.h>

#include "model/text_embedder.h"

namespace fretsaw {
namespace {

constexpr int64_t kChunk = 8, kContext = 6, kVocab = 100;

// A text's vector is (sum of its ids, sum of id * position, number of tokens).
class Sums : public EncodeProgram {
 public:
  Result<std::span<const float>> Encode(const EncodeArgs& a) override {
    if (fail) return Error{Status::kInternal, "made to fail"};
    REQUIRE(a.cu.front() == 0);
    REQUIRE(a.cu.back() == std::ssize(a.tokens));
    REQUIRE(a.positions.size() == a.tokens.size());
    CHECK(std::ssize(a.tokens) <= kChunk);
    CHECK(std::ssize(a.cu) <= kChunk + 1);
    texts.push_back(std::ssize(a.cu) - 1);
    out.clear();
    for (size_t b = 0; b + 1 < a.cu.size(); ++b) {
      float sum = 0, weighted = 0;
      for (auto t = static_cast<size_t>(a.cu[b]); t < static_cast<size_t>(a.cu[b + 1]); ++t) {
        sum += static_cast<float>(a.tokens[t]);
        weighted += static_cast<float>(a.tokens[t] * a.positions[t]);
      }
      out.insert(out.end(), {sum, weighted, static_cast<float>(a.cu[b + 1] - a.cu[b])});
    }
    return std::span<const float>(out);
  }
  bool fail = false;
  std::vector<int64_t> texts;  // of each step
  std::vector<float> out;
};

struct Fixture {
  Fixture() {
    Manifest manifest;
    manifest.model.context = kContext;
    manifest.model.vocab_size = kVocab;
    manifest.program.chunk_tokens = kChunk;
    manifest.embedding = EmbeddingInfo{3, "mean", false};
    auto owned = std::make_unique<Sums>();
    program = owned.get();
    encoder = std::make_unique<Encoder>(manifest, std::move(owned));
  }
  Sums* program;
  std::unique_ptr<Encoder> encoder;
};

using Ids = std::vector<int32_t>;

TEST_CASE("encoder: texts fill steps in order, whole") {
  Fixture f;
  const std::vector<Ids> texts = {{1, 2, 3}, {4}, {}, {5, 6, 7, 8, 9}, {10, 11, 12}, {13}};
  std::vector<float> out = {7};
  REQUIRE(f.encoder->Embed(texts, &out).ok());
  CHECK(f.program->texts == std::vector<int64_t>{3, 2, 1});
  CHECK(out == std::vector<float>{7, 6, 8, 3, 4, 0, 1, 0, 0, 0, 35, 80, 5, 33, 35, 3, 13, 0, 1});
}

TEST_CASE("encoder: no texts, and more texts without tokens than a step holds") {
  Fixture f;
  std::vector<float> out;
  REQUIRE(f.encoder->Embed({}, &out).ok());
  CHECK(out.empty());
  CHECK(f.program->texts.empty());
  REQUIRE(f.encoder->Embed(std::vector<Ids>(2 * kChunk + 3), &out).ok());
  CHECK(out == std::vector<float>((2 * kChunk + 3) * 3, 0.0f));
  CHECK(f.program->texts == std::vector<int64_t>{kChunk, kChunk, 3});
}

TEST_CASE("encoder: refusals leave the vectors as they were") {
  Fixture f;
  std::vector<float> out = {7};
  const auto check = [&](const Ids& wrong, Status status, const char* words) {
    const std::vector<Ids> texts = {{1}, wrong};
    auto made = f.encoder->Embed(texts, &out);
    REQUIRE_FALSE(made.ok());
    CHECK(made.error().status == status);
    CHECK(made.error().message == words);
    CHECK(out == std::vector<float>{7});
  };
  check(Ids(7, 1), Status::kPromptTooLong, "a text of 7 tokens is over the model's 6");
  check({100}, Status::kBadInput, "token id 100 is outside the vocabulary of 100");
  check({-1}, Status::kBadInput, "token id -1 is outside the vocabulary of 100");
  CHECK(f.program->texts.empty());
  f.program->fail = true;
  check({2}, Status::kInternal, "made to fail");
  f.program->fail = false;
  // Nothing of the failed call is left over.
  const std::vector<Ids> texts = {{2}};
  REQUIRE(f.encoder->Embed(texts, &out).ok());
  CHECK(out == std::vector<float>{7, 2, 0, 1});
}

TEST_CASE("encoder: long texts lose their end and keep their special tokens") {
  const Ids own = {1, 2, 3, 4};
  CHECK(Truncate(Ids{90, 1, 2, 3, 4, 91}, own, 5) == Ids{90, 1, 2, 3, 91});
  CHECK(Truncate(Ids{90, 1, 2, 3, 4, 91}, own, 2) == Ids{90, 91});
  CHECK(Truncate(Ids{90, 1, 2, 3, 4, 91}, own, 1) == Ids{90});
  CHECK(Truncate(Ids{1, 2, 3, 4, 91, 92}, own, 4) == Ids{1, 2, 91, 92});
  CHECK(Truncate(Ids{90, 1, 2, 3, 4}, own, 3) == Ids{90, 1, 2});
  CHECK(Truncate(own, own, 3) == Ids{1, 2, 3});
  // A special token that the text starts with too.
  CHECK(Truncate(Ids{1, 1, 2, 3, 4, 91}, own, 4) == Ids{1, 1, 2, 91});
}

}  // namespace
}  // namespace fretsaw
