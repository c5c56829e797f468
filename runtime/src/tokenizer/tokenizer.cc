#include "tokenizer/tokenizer.h"

#include "tokenizer/added_tokens.h"
#include "tokenizer/features.h"
#include "tokenizer/json_source.h"
#include "tokenizer/model.h"
#include "tokenizer/normalizer.h"
#include "tokenizer/post_processor.h"
#include "tokenizer/pre_tokenizer.h"
#include "tokenizer/utf8.h"

namespace fretsaw {

struct Tokenizer::Parts {
  Normalizer normalizer;
  PreTokenizer pre_tokenizer;
  std::unique_ptr<TokenModel> model;
  AddedTokens added;
  PostProcessor post_processor;
  Decoder decoder;
  size_t vocab_size = 0;
  int32_t largest_id = -1;
};

namespace {

int32_t LargestId(const Vocab& vocab, const AddedTokens& added) {
  return std::max(vocab.largest_id(), added.largest_id());
}

// Entries of both, without counting a token twice.
size_t Entries(const Config& added_list, const Vocab& vocab) {
  size_t count = vocab.size();
  if (added_list.IsNull()) return count;
  for (size_t i = 0; i < added_list.Size(); ++i) {
    const std::string content = added_list.At(i).Text("content");
    count += !content.empty() && !vocab.Find(content) ? 1 : 0;
  }
  return count;
}

Error NegativeId(int32_t id) {
  return {Status::kBadInput, "token id " + std::to_string(id) + " is negative"};
}

}  // namespace

Result<Tokenizer> Tokenizer::Load(std::string_view json) { return Load(json, TokenizerLimits{}); }

Result<Tokenizer> Tokenizer::Load(std::string_view json, const TokenizerLimits& limits) {
  try {
    auto source = ReadTokenizerJson(json, limits);
    if (!source) return source.error();
    const Config root(source.value().root, "");
    auto parts = std::make_shared<Parts>();
    parts->normalizer = Normalizer(root.At("normalizer"));
    parts->pre_tokenizer = PreTokenizer(root.At("pre_tokenizer"));
    parts->model = MakeModel(root.At("model"), source.value());
    parts->added = AddedTokens(root.At("added_tokens"), parts->model->vocab(), parts->normalizer);
    parts->vocab_size = Entries(root.At("added_tokens"), parts->model->vocab());
    parts->largest_id = LargestId(parts->model->vocab(), parts->added);
    parts->post_processor = PostProcessor(root.At("post_processor"), parts->largest_id);
    parts->decoder = Decoder(root.At("decoder"));
    return Tokenizer(std::move(parts));
  } catch (const ConfigFailure& failure) {
    return failure.error;
  } catch (const std::bad_alloc&) {
    return Error{Status::kOutOfMemory, "tokenizer.json: not enough memory"};
  } catch (const std::exception& e) {  // nlohmann's, should one of its checks be missed above
    return Error{Status::kCorrupt, std::string("tokenizer.json: ") + e.what()};
  }
}

Result<std::vector<int32_t>> Tokenizer::Encode(std::string_view text,
                                               bool add_special_tokens) const {
  if (const auto bad = utf8::FirstInvalid(text)) {
    return Error{Status::kBadInput, "text is not valid UTF-8: bad byte at offset " +
                                        std::to_string(*bad) + "; convert it to UTF-8 first"};
  }
  Pieces pieces;
  if (auto done = parts_->added.Extract(text, parts_->normalizer, pieces); !done)
    return done.error();
  if (auto done = parts_->pre_tokenizer.Apply(pieces); !done) return done.error();
  std::vector<int32_t> ids;
  ids.reserve(text.size() / 3 + 8);
  for (const Piece& piece : pieces) {
    if (piece.token >= 0) {
      ids.push_back(piece.token);
    } else if (auto done = parts_->model->Tokenize(piece.text, ids); !done) {
      return done.error();
    }
  }
  return parts_->post_processor.Apply(std::move(ids), add_special_tokens);
}

std::optional<std::string_view> Tokenizer::DecoderToken(int32_t id,
                                                        bool skip_special_tokens) const {
  auto token = parts_->added.DecoderText(id);
  if (!token) token = parts_->model->vocab().Token(id);
  if (token && skip_special_tokens && parts_->added.IsSpecial(*token)) return std::nullopt;
  return token;
}

Result<std::string> Tokenizer::Decode(std::span<const int32_t> ids,
                                      bool skip_special_tokens) const {
  DecodeStream stream(parts_->decoder);
  for (const int32_t id : ids) {
    if (id < 0) return NegativeId(id);
    if (const auto token = DecoderToken(id, skip_special_tokens)) stream.Push(*token);
  }
  stream.Finish();
  return stream.Take();
}

size_t Tokenizer::vocab_size() const { return parts_->vocab_size; }
int32_t Tokenizer::largest_id() const { return parts_->largest_id; }

std::optional<int32_t> Tokenizer::TokenToId(std::string_view token) const {
  const auto added = parts_->added.Find(token);
  return added ? added : parts_->model->vocab().Find(token);
}

std::optional<std::string> Tokenizer::IdToToken(int32_t id) const {
  if (const auto* content = parts_->added.Content(id)) return *content;
  if (const auto token = parts_->model->vocab().Token(id)) return std::string(*token);
  return std::nullopt;
}

bool Tokenizer::IsSpecial(int32_t id) const {
  const auto* content = parts_->added.Content(id);
  return content != nullptr && parts_->added.IsSpecial(*content);
}

StreamDecoder::StreamDecoder(Tokenizer tokenizer, bool skip_special_tokens)
    : tokenizer_(std::move(tokenizer)),
      skip_special_tokens_(skip_special_tokens),
      stream_(tokenizer_.parts_->decoder) {}

Result<std::string> StreamDecoder::Push(int32_t id) {
  if (id < 0) return NegativeId(id);
  if (const auto token = tokenizer_.DecoderToken(id, skip_special_tokens_)) stream_.Push(*token);
  return stream_.Take();
}

std::string StreamDecoder::Flush() {
  stream_.Finish();
  return stream_.Take();
}

std::string SupportedTokenizerFeatures() {
  nlohmann::json out;
  const auto list = [&](const char* key, const auto& names) {
    for (const auto name : names) out[key].push_back(std::string(name));
  };
  list("model", features::kModels);
  list("normalizer", features::kNormalizers);
  list("pre_tokenizer", features::kPreTokenizers);
  list("post_processor", features::kPostProcessors);
  list("decoder", features::kDecoders);
  return out.dump();
}

}  // namespace fretsaw
