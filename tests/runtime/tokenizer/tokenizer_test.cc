// Tokenizer: bad input, each kind with its own message, and the streaming contract.
#include "tokenizer/tokenizer.h"

#include <doctest/doctest.h>

#include "tokenizer/json_source.h"
#include "tokenizer/utf8.h"

using fretsaw::Status;
using fretsaw::Tokenizer;

namespace {

// A small byte-fallback tokenizer; `extra` goes into the root, `model` into the model.
std::string Json(const std::string& extra = "", const std::string& merges = R"("a b")",
                 const std::string& vocab = R"("<unk>":0,"a":1,"b":2,"ab":3,"<0xC3>":4,"<0xA9>":5)",
                 const std::string& model = "") {
  return R"({"model":{"type":"BPE","unk_token":"<unk>","byte_fallback":true,)" + model +
         R"("vocab":{)" + vocab + R"(},"merges":[)" + merges + R"(]},)" + extra +
         R"("decoder":{"type":"Sequence","decoders":[{"type":"ByteFallback"},{"type":"Fuse"}]}})";
}

void CheckRefused(const std::string& json, Status status, const std::string& part) {
  const auto loaded = Tokenizer::Load(json);
  REQUIRE_FALSE(loaded.ok());
  CHECK(loaded.error().status == status);
  CHECK_MESSAGE(loaded.error().message.find(part) != std::string::npos, loaded.error().message);
}

}  // namespace

TEST_CASE("encode, decode, stream") {
  const auto loaded = Tokenizer::Load(Json());
  REQUIRE(loaded.ok());
  const Tokenizer& t = loaded.value();
  const auto ids = t.Encode("ab\xC3\xA9x", true);
  REQUIRE(ids.ok());
  CHECK(ids.value() == std::vector<int32_t>{3, 4, 5, 0});
  CHECK(t.Decode(ids.value(), false).value() == "ab\xC3\xA9<unk>");
  fretsaw::StreamDecoder stream(t, false);
  CHECK(stream.Push(3).value() == "ab");
  CHECK(stream.Push(4).value().empty());  // half a character
  CHECK(stream.Push(5).value().empty());  // a run of bytes is certain only when it ends
  CHECK(stream.Push(1).value() ==
        "\xC3\xA9"
        "a");
  CHECK(stream.Push(4).value().empty());
  CHECK(stream.Flush() == "\xEF\xBF\xBD");
  CHECK(t.vocab_size() == 6);
  CHECK(t.TokenToId("ab") == 3);
  CHECK(t.IdToToken(3) == "ab");
  CHECK_FALSE(t.IdToToken(6).has_value());
}

TEST_CASE("text that is not UTF-8 is refused with its offset") {
  const auto t = Tokenizer::Load(Json()).value();
  for (const std::string bad :
       {"a\xFF", "a\xC3", "a\xC0\x80", "a\xED\xA0\x80", "a\xF4\x90\x80\x80", "a\xE2\x82"}) {
    const auto ids = t.Encode(bad, false);
    REQUIRE_FALSE(ids.ok());
    CHECK(ids.error().status == Status::kBadInput);
    CHECK(ids.error().message ==
          "text is not valid UTF-8: bad byte at offset 1; convert it to UTF-8 first");
  }
}

TEST_CASE("ids") {
  const auto t = Tokenizer::Load(Json()).value();
  const int32_t negative[] = {-1};
  CHECK(t.Decode(negative, false).error().message == "token id -1 is negative");
  const int32_t past[] = {3, 999};  // a model may have more rows than the tokenizer has tokens
  CHECK(t.Decode(past, false).value() == "ab");
}

TEST_CASE("broken and hostile JSON") {
  CheckRefused("", Status::kCorrupt, "not valid JSON near byte");
  CheckRefused("{\"model\":", Status::kCorrupt, "not valid JSON near byte 10");
  CheckRefused("[]", Status::kCorrupt, "expected an object at the top");
  CheckRefused("{}", Status::kCorrupt, "model: expected an object");
  CheckRefused(std::string(100'000, '['), Status::kCorrupt, "nested deeper than 64 levels");
  std::string deep = "{\"a\":";
  for (int i = 0; i < 100'000; ++i) deep += "{\"a\":";
  CheckRefused(deep, Status::kCorrupt, "nested deeper than 64 levels");
  CheckRefused(Json(R"("normalizer":7,)"), Status::kCorrupt, "normalizer");
  CheckRefused(Json(R"("normalizer":{"type":"Lowercse"},)"), Status::kUnsupported,
               "normalizer 'Lowercse' is not supported");
}

TEST_CASE("inconsistent vocabulary and merges") {
  CheckRefused(Json("", R"("a b")", R"("<unk>":0,"a":1,"b":1,"ab":3)"), Status::kCorrupt,
               "id 1 appears twice, for 'a' and 'b'");
  CheckRefused(Json("", R"("a b")", R"("<unk>":0,"a":1,"a":2)"), Status::kCorrupt,
               "token 'a' appears twice");
  CheckRefused(Json("", R"("a b")", R"("<unk>":0,"a":-1)"), Status::kCorrupt,
               "'a' has id -1, outside 0..");
  CheckRefused(Json("", R"("a b")", R"("<unk>":0,"a":4000000000)"), Status::kCorrupt,
               "has id 4000000000, outside");
  CheckRefused(Json("", R"("a b")", R"("<unk>":0,"a":1.5)"), Status::kCorrupt,
               "model.vocab: expected a whole number");
  CheckRefused(Json("", R"("a b")", R"("<unk>":0,"a":"1")"), Status::kCorrupt,
               "model.vocab: expected an id, got text");
  CheckRefused(Json("", R"("a q")"), Status::kCorrupt,
               "merges[0] names 'q', which is not in the vocabulary");
  CheckRefused(Json("", R"("b a")"), Status::kCorrupt,
               "merges[0] names 'ba', which is not in the vocabulary");
  CheckRefused(Json("", R"("a b c")"), Status::kCorrupt, "model.merges[0]: expected two parts");
  CheckRefused(Json("", R"(["a"])"), Status::kCorrupt,
               "model.merges[0]: a merge needs two parts, got 1");
  CheckRefused(Json("", R"("a b")", R"("a":1,"b":2,"ab":3)"), Status::kCorrupt,
               "'<unk>' is not in the vocabulary");
  CheckRefused(Json("", R"("a b")", R"("<unk>":0,"a":1,"b":2,"ab":3)", R"("dropout":0.1,)"),
               Status::kUnsupported, "dropout");
}

TEST_CASE("added tokens, templates, patterns") {
  const auto added = [](const char* id) {
    return std::string(R"("added_tokens":[{"id":)") + id +
           R"(,"content":"<x>","single_word":false,"lstrip":false,"rstrip":false,"normalized":false,"special":true}],)";
  };
  CHECK(Tokenizer::Load(Json(added("6"))).ok());
  CheckRefused(Json(added("7")), Status::kCorrupt,
               "added_tokens[0].id: '<x>' says 7, but its id in the vocabulary is 6");
  CheckRefused(Json(R"("added_tokens":[{"id":6}],)"), Status::kCorrupt,
               "added_tokens[0].content: expected text, got null");
  CheckRefused(Json(R"("post_processor":{"type":"BertProcessing","sep":["s",99],"cls":["c",1]},)"),
               Status::kCorrupt, "post_processor.sep[1]: 99 is outside 0..5");
  const auto split = [](const std::string& pattern) {
    return R"("pre_tokenizer":{"type":"Split","pattern":{"Regex":")" + pattern +
           R"("},"behavior":"Isolated","invert":false},)";
  };
  CheckRefused(Json(split("(a")), Status::kCorrupt, "pre_tokenizer.pattern: pattern is not valid");
  CheckRefused(Json(split("\\\\p{Tangut}")), Status::kUnsupported,
               "pattern uses the property \\p{Tangut} at byte 0");
  // A pattern that backtracks for ever gives an error, not a hang.
  const auto slow = Tokenizer::Load(Json(split("(?:a|aa)+$")));
  REQUIRE(slow.ok());
  const auto ids = slow.value().Encode(std::string(4000, 'a') + "b", false);
  REQUIRE_FALSE(ids.ok());
  CHECK(ids.error().message.find("gave up on this text") != std::string::npos);
}

TEST_CASE("limits") {
  fretsaw::TokenizerLimits limits;
  limits.max_vocab = 3;
  CHECK(Tokenizer::Load(Json(), limits).error().message ==
        "tokenizer.json: model.vocab has more than 3 entries");
  limits = {};
  limits.max_merges = 0;
  CHECK(Tokenizer::Load(Json(), limits).error().message ==
        "tokenizer.json: model.merges has more than 0 entries");
  limits = {};
  limits.max_bytes = 10;
  CHECK(Tokenizer::Load(Json(), limits).error().message.find("bytes, at most 10") !=
        std::string::npos);
}

TEST_CASE("every cut of a good file is an error, never a crash") {
  const std::string json = Json();
  for (size_t n = 0; n < json.size(); ++n) CHECK_FALSE(Tokenizer::Load(json.substr(0, n)).ok());
}
