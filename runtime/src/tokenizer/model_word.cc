// WordPiece (longest match first) and WordLevel (whole words).
#include <algorithm>

#include "tokenizer/features.h"
#include "tokenizer/model.h"
#include "tokenizer/utf8.h"

namespace fretsaw {
namespace {

int32_t UnknownOf(const Config& config, const Vocab& vocab) {
  const std::string token = config.Text("unk_token");
  const auto id = vocab.Find(token);
  if (!id) config.At("unk_token").Corrupt("'" + token + "' is not in the vocabulary");
  return *id;
}

class WordPiece : public TokenModel {
 public:
  WordPiece(const Config& config, Vocab vocab)
      : TokenModel(std::move(vocab)),
        prefix_(config.Text("continuing_subword_prefix", "##")),
        unknown_(UnknownOf(config, vocab_)),
        max_chars_(config.Has("max_input_chars_per_word")
                       ? static_cast<size_t>(config.At("max_input_chars_per_word").Int(0, 1 << 20))
                       : 100) {}

  VoidResult Tokenize(std::string_view text, std::vector<int32_t>& ids) const override {
    const auto chars = std::ranges::count_if(
        text, [](char b) { return (static_cast<unsigned char>(b) & 0xC0u) != 0x80u; });
    const size_t before = ids.size();
    if (static_cast<size_t>(chars) > max_chars_) {
      ids.push_back(unknown_);
      return Ok{};
    }
    for (size_t begin = 0; begin < text.size();) {
      const size_t end = LongestAt(text, begin, ids);
      if (end == begin) {  // one part unknown makes the whole word unknown
        ids.resize(before);
        ids.push_back(unknown_);
        return Ok{};
      }
      begin = end;
    }
    return Ok{};
  }

 private:
  size_t LongestAt(std::string_view text, size_t begin, std::vector<int32_t>& ids) const {
    std::string key = begin > 0 ? prefix_ : "";
    const size_t fixed = key.size();
    key += text.substr(begin);
    for (size_t end = text.size(); end > begin;) {
      if (const auto id = vocab_.Find(key)) {
        ids.push_back(*id);
        return end;
      }
      utf8::Previous(text, end);
      key.resize(fixed + end - begin);
    }
    return begin;
  }

  std::string prefix_;
  int32_t unknown_;
  size_t max_chars_;
};

class WordLevel : public TokenModel {
 public:
  WordLevel(const Config& config, Vocab vocab)
      : TokenModel(std::move(vocab)), unknown_(UnknownOf(config, vocab_)) {}

  VoidResult Tokenize(std::string_view text, std::vector<int32_t>& ids) const override {
    ids.push_back(vocab_.Find(text).value_or(unknown_));
    return Ok{};
  }

 private:
  int32_t unknown_;
};

}  // namespace

std::unique_ptr<TokenModel> MakeWordPiece(const Config& config, Vocab vocab) {
  return std::make_unique<WordPiece>(config, std::move(vocab));
}

std::unique_ptr<TokenModel> MakeWordLevel(const Config& config, Vocab vocab) {
  return std::make_unique<WordLevel>(config, std::move(vocab));
}

std::unique_ptr<TokenModel> MakeModel(const Config& config, const TokenizerSource& source) {
  if (!config.IsObject()) config.Corrupt("expected an object");
  // Files written before 2020 carry no type; only BPE has merges.
  const std::string type =
      config.Has("type") || !source.has_merges ? config.Type("model", features::kModels) : "BPE";
  if (!source.has_vocab) config.At("vocab").Corrupt("missing");
  auto vocab = Vocab::Build(source.vocab);
  if (!vocab) throw ConfigFailure{vocab.error()};
  if (type == "BPE") return MakeBpe(config, source, std::move(vocab).value());
  if (type == "WordPiece") return MakeWordPiece(config, std::move(vocab).value());
  return MakeWordLevel(config, std::move(vocab).value());
}

}  // namespace fretsaw
