// Manifest::Parse: typed values, and each inconsistency with the path of its field.
#include "artifact/manifest.h"

#include <doctest/doctest.h>

#include "artifact/builder.h"

namespace fretsaw {
namespace {

Result<Manifest> Parse(const std::string& text) {
  test::Parts parts;
  parts.manifest = text;
  const test::Bytes bytes = test::Build(parts);
  auto container = Container::Parse(bytes);
  REQUIRE(container.ok());
  return Manifest::Parse(container.value());
}

TEST_CASE("manifest: values arrive typed") {
  auto parsed = Parse(test::kManifest);
  REQUIRE(parsed.ok());
  const Manifest& m = parsed.value();
  CHECK(m.model.context == 16);
  CHECK(m.generation.eos_token_ids == std::vector<int32_t>{2});
  CHECK_FALSE(m.generation.bos_token_id.has_value());
  CHECK_FALSE(m.tokenizer.has_value());
  REQUIRE(m.tensors.size() == 2);
  CHECK(m.tensors[1].dtype == DType::kF16);
  CHECK(m.tensors[1].offset == 64);
  CHECK(m.kv.PagePairBytes() == 4 * 8 * 4);
  CHECK_FALSE(m.program.empty_rows);
  CHECK(m.program.chunk_align == 1);
  CHECK_FALSE(m.program.whole_prompts);
}

TEST_CASE("manifest: the storage of the cache decides its bytes") {
  const std::pair<const char*, int64_t> cases[] = {
      {"f32", 4 * 8 * 4}, {"f16", 4 * 8 * 2}, {"int8", 4 * (8 + 2 * 4)}};
  for (const auto& [name, bytes] : cases) {
    std::string text = test::kManifest;
    text.replace(text.find("\"dtype\": \"f32\"}"), 14, std::string("\"dtype\": \"") + name + "\"");
    auto parsed = Parse(text);
    REQUIRE(parsed.ok());
    CHECK(parsed.value().kv.PagePairBytes() == bytes);
    CHECK(parsed.value().kv.KeyPageBytes() == bytes / 2);
  }
}

TEST_CASE("manifest: bounds of keys beside pages") {
  CHECK(Parse(test::kManifest).value().kv.KeyBoundBytes() == 0);
  std::string text = test::kManifest;
  text.replace(text.find("\"dtype\": \"f32\"}"), 15, "\"dtype\": \"f32\", \"key_bounds\": true}");
  auto parsed = Parse(text);
  REQUIRE(parsed.ok());
  CHECK(parsed.value().kv.key_bounds);
  CHECK(parsed.value().kv.KeyBoundBytes() == 2 * 4 * 4);
  CHECK(parsed.value().kv.PagePairBytes() == 4 * 8 * 4 + 2 * 4 * 4);
}

TEST_CASE("manifest: how prompts may be cut") {
  const std::string was = "\"chunk_tokens\": 4";
  std::string text = test::kManifest;
  text.replace(text.find(was), was.size(),
               "\"chunk_tokens\": 8, \"chunk_align\": 4, \"whole_prompts\": true");
  auto parsed = Parse(text);
  REQUIRE(parsed.ok());
  CHECK(parsed.value().program.chunk_align == 4);
  CHECK(parsed.value().program.whole_prompts);
}

TEST_CASE("manifest: steps that a second entry runs") {
  const std::string was = "\"chunk_tokens\": 4";
  std::string text = test::kManifest;
  CHECK_FALSE(Parse(text).value().program.dense.has_value());
  text.replace(
      text.find(was), was.size(),
      "\"chunk_tokens\": 4, \"dense\": {\"entry\": \"d\", \"until\": 9, \"single\": true}");
  auto parsed = Parse(text);
  REQUIRE(parsed.ok());
  REQUIRE(parsed.value().program.dense.has_value());
  const DenseSteps& dense = *parsed.value().program.dense;
  CHECK(dense.entry == "d");
  CHECK(dense.until == 9);
  CHECK(dense.single);
  CHECK_FALSE(dense.prompts);
}

TEST_CASE("manifest: each inconsistency is refused with its path") {
  struct Case {
    const char *from, *to, *words;
    Status status = Status::kCorrupt;
  };
  const Case cases[] = {
      {"\"context\": 16", "\"context\": 0", "model.context: expected an integer from 1 to"},
      {"\"context\": 16", "\"context\": 18446744073709551615",
       "model.context: expected an integer"},
      {"\"context\": 16", "\"context\": 1.5", "found 1.5"},
      {"\"context\": 16,", "", "model.context: missing"},
      {"\"kind\": \"decoder\"", "\"kind\": []",
       "model.kind: expected a string, found a value of type array"},
      {"[2]", "[-1]", "generation.eos_token_ids: expected an integer from 0"},
      {"\"section\": \"weights\"", "\"section\": \"nowhere\"",
       "weights: section names an absent section 'nowhere'"},
      {"\"f16\"", "\"i4\"", "'i4' is not one of", Status::kUnsupported},
      {"\"offset\": 64", "\"offset\": 32", "weights.tensors[1]: offset is not a multiple of 64"},
      {"\"offset\": 64", "\"offset\": 128", "'b' reaches past the end"},
      {"\"offset\": 64", "\"offset\": 0", "'a' and 'b' overlap"},
      {"\"name\": \"b\"", "\"name\": \"a\"", "two tensors are named 'a'"},
      {"[2, 3]", "[2, 4]", "'a' has 24 bytes, its shape needs 32"},
      {"[2, 3]", "[1099511627776, 1099511627776]", "shape of 'a' overflows"},
      {"[2, 3]", "[1,1,1,1,1,1,1,2,3]", "9 entries, at most 8"},
      {"\"page_tokens\": 4", "\"page_tokens\": 0", "kv.page_tokens: expected"},
      {"\"dtype\": \"f32\"}", "\"dtype\": \"bf16\"}",
       "kv.dtype: 'bf16' is not one of f32, f16, int8", Status::kUnsupported},
      {"\"dtype\": \"f32\"}", "\"dtype\": 8}", "kv.dtype: expected a string"},
      {"\"dtype\": \"f32\"}", "\"dtype\": \"f32\", \"key_bounds\": 64}",
       "kv.key_bounds: expected true or false"},
      // 2^29 pages of 2048 bytes are 1 TiB, which is allowed; the bounds beside them are too much.
      {"\"layers\": 2, \"kv_heads\": 1, \"key_size\": 4, \"value_size\": 4, \"page_tokens\": 4, ",
       "\"layers\": 65536, \"kv_heads\": 8192, \"key_size\": 64, \"value_size\": 64, "
       "\"page_tokens\": 4, \"key_bounds\": true, ",
       "kv: a page of every layer and head takes over 1 TiB"},
      {"\"layers\": 2, \"kv_heads\": 1, \"key_size\": 4",
       "\"layers\": 65536, \"kv_heads\": 65536, \"key_size\": 1048576",
       "kv: a page of every layer and head takes over 1 TiB"},
      {"\"layers\": 2, \"kv_heads\": 1, \"key_size\": 4, \"value_size\": 4",
       "\"layers\": 65536, \"kv_heads\": 4096, \"key_size\": 128, \"value_size\": 129",
       "kv: a page of every layer and head takes over 1 TiB"},
      {"\"chunk_tokens\": 4", "\"chunk_tokens\": 4, \"empty_rows\": 1",
       "program.empty_rows: expected true or false"},
      {"\"chunk_tokens\": 4", "\"chunk_tokens\": 4, \"whole_prompts\": 1",
       "program.whole_prompts: expected true or false"},
      {"\"chunk_tokens\": 4", "\"chunk_tokens\": 64, \"chunk_align\": 0",
       "program.chunk_align: expected an integer from 1"},
      {"\"chunk_tokens\": 4", "\"chunk_tokens\": 64, \"chunk_align\": \"4\"",
       "program.chunk_align: expected an integer"},
      {"\"chunk_tokens\": 4", "\"chunk_tokens\": 64, \"chunk_align\": 8",
       "program: chunk_align is 8, not 1 or a page of 4 tokens"},
      {"\"chunk_tokens\": 4", "\"chunk_tokens\": 7, \"chunk_align\": 4",
       "program: chunk_tokens is 7, less than two times chunk_align"},
      {"\"chunk_tokens\": 4", "\"chunk_tokens\": 4, \"dense\": {\"until\": 1}",
       "program.dense.entry: missing"},
      {"\"chunk_tokens\": 4", "\"chunk_tokens\": 4, \"dense\": {\"entry\": \"d\", \"until\": -1}",
       "program.dense.until: expected an integer from 0"},
      {"\"chunk_tokens\": 4", "\"chunk_tokens\": 4, \"dense\": 1",
       "program.dense: expected an object"},
      {"\"section\": \"code/x\"", "\"section\": \"code/y\"",
       "variants[0]: section names an absent section"},
      {"[{\"name\": \"llvm-x\"", "[], \"ignored\": [{\"name\": \"llvm-x\"",
       "variants: the list is empty"},
  };
  for (const Case& c : cases) {
    CAPTURE(c.to);
    std::string text = test::kManifest;
    const size_t at = text.find(c.from);
    REQUIRE(at != std::string::npos);
    text.replace(at, std::string(c.from).size(), c.to);
    auto parsed = Parse(text);
    REQUIRE_FALSE(parsed.ok());
    CHECK(parsed.error().status == c.status);
    INFO(parsed.error().message);
    CHECK(parsed.error().message.find(c.words) != std::string::npos);
  }
}

}  // namespace
}  // namespace fretsaw
