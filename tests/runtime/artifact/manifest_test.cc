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
  REQUIRE(m.kv.planes.size() == 2);
  CHECK(m.kv.planes[0].name == "k_pages");
  CHECK(m.kv.planes[1].shape == std::vector<int64_t>{4, 4});
  CHECK(m.kv.planes[1].fill.empty());
  CHECK(m.kv.planes[1].copied);
  CHECK(m.kv.PageBytes() == 4 * 8 * 4);
  CHECK(std::holds_alternative<FullPolicy>(m.kv.policy));
  CHECK_FALSE(m.program.empty_rows);
  CHECK(m.program.chunk_align == 1);
  CHECK_FALSE(m.program.whole_prompts);
}

TEST_CASE("manifest: planes of a page, and the policy of rows") {
  const std::string was = "\"shape\": [4, 4]}]}";
  std::string text = test::kManifest;
  text.replace(
      text.find(was), was.size(),
      "\"shape\": [4, 4]}, {\"name\": \"n\", \"dtype\": \"i8\", \"shape\": [3], \"fill\": -2, "
      "\"copy\": \"fill\"}], \"policy\": {\"name\": \"window\", \"sinks\": 4, \"window\": 128}}");
  auto parsed = Parse(text);
  REQUIRE(parsed.ok());
  const KvInfo& kv = parsed.value().kv;
  REQUIRE(kv.planes.size() == 3);
  CHECK(kv.planes[2].dtype == DType::kI8);
  CHECK(kv.planes[2].fill == std::vector<std::byte>{std::byte{0xfe}});
  CHECK_FALSE(kv.planes[2].copied);
  CHECK(kv.PageBytes() == 64 + 64 + 3);
  REQUIRE(std::holds_alternative<WindowPolicy>(kv.policy));
  CHECK(std::get<WindowPolicy>(kv.policy).sinks == 4);
  CHECK(std::get<WindowPolicy>(kv.policy).window == 128);
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
  // The second plane, from its dtype on.
  constexpr const char* kPlane = "\"dtype\": \"f32\", \"shape\": [4, 4]}]}";
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
      {"4, \"dtype\": \"f32\",\n", "4, \"dtype\": \"bf16\",\n",
       "kv.dtype: 'bf16' is not one of f32, f16, int8", Status::kUnsupported},
      {"4, \"dtype\": \"f32\",\n", "4, \"dtype\": 8,\n", "kv.dtype: expected a string"},
      {"\"planes\"", "\"plane\"", "kv.planes: missing"},
      {"\"planes\": [", "\"planes\": [1, ", "kv.planes[0]: expected an object, found 1"},
      {"\"planes\": [", "\"planes\": [], \"p\": [", "kv: planes is empty"},
      {"\"v_pages\"", "\"k_pages\"", "kv.planes[1]: a second plane 'k_pages'"},
      {"\"v_pages\"", "\"\"", "kv.planes[1]: name is empty"},
      {kPlane, "\"dtype\": \"int8\", \"shape\": [4, 4]}]}",
       "kv.planes[1].dtype: 'int8' is not one of f32, f16, bf16, i8, i32, i64",
       Status::kUnsupported},
      {kPlane, "\"dtype\": \"f32\", \"shape\": []}]}", "kv.planes[1]: shape is empty"},
      {kPlane, "\"dtype\": \"f32\", \"shape\": [4, 0]}]}",
       "kv.planes[1].shape: expected an integer from 1 to 1099511627776, found 0"},
      {kPlane, "\"dtype\": \"f32\", \"shape\": [4, -1]}]}",
       "kv.planes[1].shape: expected an integer"},
      {kPlane, "\"dtype\": \"f32\", \"shape\": [1, 1, 1, 1, 1, 1, 1, 1]}]}",
       "8 entries, at most 7"},
      {kPlane, "\"dtype\": \"f32\", \"shape\": [1099511627776, 1099511627776, 1099511627776]}]}",
       "kv.planes[1]: a page of 'v_pages' takes over 1 TiB"},
      {kPlane, "\"dtype\": \"f32\", \"shape\": [4, 4], \"fill\": 0.1}]}",
       "kv.planes[1]: fill has no exact value in the plane's dtype"},
      {kPlane, "\"dtype\": \"f32\", \"shape\": [4, 4], \"fill\": 1e39}]}",
       "fill has no exact value"},
      {kPlane, "\"dtype\": \"f32\", \"shape\": [4, 4], \"fill\": 1e-46}]}",
       "fill has no exact value"},
      {kPlane, "\"dtype\": \"f16\", \"shape\": [4, 4], \"fill\": 65505}]}",
       "fill has no exact value"},
      {kPlane, "\"dtype\": \"bf16\", \"shape\": [4, 4], \"fill\": 257}]}",
       "fill has no exact value"},
      {kPlane, "\"dtype\": \"f32\", \"shape\": [4, 4], \"fill\": \"0\"}]}",
       "kv.planes[1].fill: expected a number, found a value of type string"},
      {kPlane, "\"dtype\": \"f32\", \"shape\": [4, 4], \"fill\": false}]}",
       "kv.planes[1].fill: expected a number, found false"},
      {kPlane, "\"dtype\": \"i8\", \"shape\": [4, 4], \"fill\": 128}]}",
       "kv.planes[1].fill: expected an integer from -128 to 127, found 128"},
      {kPlane, "\"dtype\": \"i32\", \"shape\": [4, 4], \"fill\": 0.5}]}",
       "kv.planes[1].fill: expected an integer"},
      {kPlane, "\"dtype\": \"f32\", \"shape\": [4, 4], \"copy\": \"share\"}]}",
       "kv.planes[1].copy: 'share' is not one of page, fill", Status::kUnsupported},
      {kPlane, "\"dtype\": \"f32\", \"shape\": [4, 4], \"copy\": \"fill\"}]}",
       "kv.planes[1]: copy is 'fill', and there is no fill"},
      {kPlane, "\"dtype\": \"f32\", \"shape\": [4, 4]}], \"policy\": {\"name\": \"lru\"}}",
       "kv.policy.name: 'lru' is not one of full, window", Status::kUnsupported},
      {kPlane,
       "\"dtype\": \"f32\", \"shape\": [4, 4]}], \"policy\": {\"name\": \"window\", \"sinks\": 0}}",
       "kv.policy.window: missing"},
      {kPlane,
       "\"dtype\": \"f32\", \"shape\": [4, 4]}], \"policy\": {\"name\": \"window\", \"sinks\": -1, "
       "\"window\": 4}}",
       "kv.policy.sinks: expected an integer from 0"},
      {kPlane,
       "\"dtype\": \"f32\", \"shape\": [4, 4]}], \"policy\": {\"name\": \"window\", \"sinks\": 0, "
       "\"window\": 0}}",
       "kv.policy.window: expected an integer from 1"},
      {"\"shape\": [4, 4]}]},\n  \"program\": {",
       "\"shape\": [4, 4]}], \"policy\": {\"name\": \"window\", \"sinks\": 0, \"window\": 4}},\n  "
       "\"program\": {\"whole_prompts\": true, ",
       "kv.policy: slots are evicted, and the program has chunk_align, whole_prompts or dense"},
      // 2^32 pages of 128 bytes are 2^39; of 256 and more, 2^40 and over.
      {"\"layers\": 2, \"kv_heads\": 1, \"key_size\": 4, \"value_size\": 4, \"page_tokens\": 4, "
       "\"dtype\": \"f32\",\n"
       "    \"planes\": [{\"name\": \"k_pages\", \"dtype\": \"f32\", \"shape\": [4, 4]}",
       "\"layers\": 65536, \"kv_heads\": 65536, \"key_size\": 4, \"value_size\": 4, "
       "\"page_tokens\": 4, "
       "\"dtype\": \"f32\",\n    \"planes\": [{\"name\": \"k_pages\", \"dtype\": \"f32\", "
       "\"shape\": [4, 13]}",
       "kv: a page of every layer and head takes over 1 TiB"},
      {"\"layers\": 2, \"kv_heads\": 1, \"key_size\": 4",
       "\"layers\": 2, \"kv_heads\": 1, \"key_size\": 0", "kv.key_size: expected"},
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
