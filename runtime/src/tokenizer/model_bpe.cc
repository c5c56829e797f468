// The BPE model of tokenizer.json: initial symbols, byte fallback, unknown tokens, then the merges.
#include <array>
#include <cstdio>

#include "tokenizer/bpe.h"
#include "tokenizer/model.h"
#include "tokenizer/utf8.h"

namespace fretsaw {
namespace {

constexpr uint32_t kDirect = 0x800;  // code points whose id is looked up in an array

class Bpe : public TokenModel {
 public:
  Bpe(const Config& config, const TokenizerSource& source, Vocab vocab);
  VoidResult Tokenize(std::string_view text, std::vector<int32_t>& ids) const override;

 private:
  void ReadOptions(const Config& config);
  void ReadMerges(const Config& config, const TokenizerSource& source);
  int32_t Symbol(std::string_view character, bool first, bool last) const;  // -1: unknown
  bool Bytes(std::string_view character, bool first, bool last, std::vector<int32_t>& word) const;
  std::string Affixed(std::string_view character, bool first, bool last) const;

  std::string prefix_, suffix_;
  int32_t unknown_ = -1;
  bool fuse_unknown_ = false;
  bool byte_fallback_ = false;
  bool ignore_merges_ = false;
  std::array<int32_t, 256> bytes_{};
  std::array<int32_t, kDirect> direct_{};
  MergeTable merges_;
};

Bpe::Bpe(const Config& config, const TokenizerSource& source, Vocab vocab)
    : TokenModel(std::move(vocab)) {
  ReadOptions(config);
  ReadMerges(config, source);
  for (int b = 0; b < 256; ++b) {
    char name[8];
    std::snprintf(name, sizeof name, "<0x%02X>", static_cast<unsigned>(b));
    bytes_[static_cast<size_t>(b)] = vocab_.Find(name).value_or(-1);
  }
  for (uint32_t c = 0; c < kDirect; ++c) {
    std::string text;
    utf8::Append(c, text);
    direct_[c] = vocab_.Find(text).value_or(-1);
  }
}

void Bpe::ReadOptions(const Config& config) {
  if (config.Has("dropout") && config.At("dropout").node() != 0) {
    config.At("dropout").Unsupported("dropout makes tokenization random; set it to null");
  }
  prefix_ = config.Text("continuing_subword_prefix", "");
  suffix_ = config.Text("end_of_word_suffix", "");
  fuse_unknown_ = config.Flag("fuse_unk", false);
  byte_fallback_ = config.Flag("byte_fallback", false);
  ignore_merges_ = config.Flag("ignore_merges", false);
  if (config.Has("unk_token")) {
    const std::string unknown = config.Text("unk_token");
    // The original fails only when it meets an unknown character; an artifact should not wait.
    unknown_ = vocab_.Find(unknown).value_or(-1);
    if (unknown_ < 0) config.At("unk_token").Corrupt("'" + unknown + "' is not in the vocabulary");
  }
}

void Bpe::ReadMerges(const Config& config, const TokenizerSource& source) {
  if (!source.has_merges) config.At("merges").Corrupt("missing");
  merges_.Reserve(source.merges.size());
  std::string joined;
  for (size_t i = 0; i < source.merges.size(); ++i) {
    const auto& [left, right] = source.merges[i];
    const auto need = [&](const std::string& token) {
      const auto id = vocab_.Find(token);
      if (!id) {
        config.Corrupt("merges[" + std::to_string(i) + "] names '" + token.substr(0, 60) +
                       "', which is not in the vocabulary");
      }
      return *id;
    };
    const int32_t a = need(left), b = need(right);
    if (right.size() < prefix_.size()) {
      config.Corrupt("merges[" + std::to_string(i) +
                     "]: the right part lacks the continuing_subword_prefix");
    }
    joined.assign(left).append(right, prefix_.size());
    merges_.Set(a, b, {static_cast<uint32_t>(i), need(joined)});
  }
}

std::string Bpe::Affixed(std::string_view character, bool first, bool last) const {
  std::string text = first ? "" : prefix_;
  text += character;
  if (last) text += suffix_;
  return text;
}

int32_t Bpe::Symbol(std::string_view character, bool first, bool last) const {
  if (!prefix_.empty() || !suffix_.empty()) {
    return vocab_.Find(Affixed(character, first, last)).value_or(-1);
  }
  size_t at = 0;
  const uint32_t c = utf8::Next(character, at);
  return c < kDirect ? direct_[c] : vocab_.Find(character).value_or(-1);
}

bool Bpe::Bytes(std::string_view character, bool first, bool last,
                std::vector<int32_t>& word) const {
  const size_t before = word.size();
  for (const char b : Affixed(character, first, last)) {
    const int32_t id = bytes_[static_cast<unsigned char>(b)];
    if (id < 0) {
      word.resize(before);
      return false;
    }
    word.push_back(id);
  }
  return true;
}

VoidResult Bpe::Tokenize(std::string_view text, std::vector<int32_t>& ids) const {
  if (text.empty()) return Ok{};
  if (ignore_merges_) {
    if (const auto id = vocab_.Find(text)) {
      ids.push_back(*id);
      return Ok{};
    }
  }
  std::vector<int32_t> word;
  word.reserve(text.size());
  bool pending = false;  // an unknown token not yet written, so that neighbours can fuse with it
  for (size_t at = 0; at < text.size();) {
    const size_t begin = at;
    at += utf8::Length(static_cast<unsigned char>(text[at]));
    const std::string_view character = text.substr(begin, at - begin);
    const bool first = begin == 0, last = at == text.size();
    if (const int32_t id = Symbol(character, first, last); id >= 0) {
      if (pending) word.push_back(unknown_);
      pending = false;
      word.push_back(id);
    } else if (byte_fallback_ && Bytes(character, first, last, word)) {
      // As in the original, bytes overtake a pending unknown token.
    } else if (unknown_ >= 0) {
      if (pending && !fuse_unknown_) word.push_back(unknown_);
      pending = true;
    }
  }
  if (pending) word.push_back(unknown_);
  MergeAll(merges_, word);
  ids.insert(ids.end(), word.begin(), word.end());
  return Ok{};
}

}  // namespace

std::unique_ptr<TokenModel> MakeBpe(const Config& config, const TokenizerSource& source,
                                    Vocab vocab) {
  return std::make_unique<Bpe>(config, source, std::move(vocab));
}

}  // namespace fretsaw
