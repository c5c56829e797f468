#include "tokenizer/decoder.h"

#include "tokenizer/decode_stages.h"
#include "tokenizer/features.h"
#include "tokenizer/metaspace.h"
#include "tokenizer/normalizer.h"

namespace fretsaw {
namespace {

// English clean-up of WordPiece, in the original's order.
std::string CleanUp(std::string text) {
  static constexpr std::pair<std::string_view, std::string_view> kRules[] = {
      {" .", "."},   {" ?", "?"},     {" !", "!"},    {" ,", ","},
      {" ' ", "'"},  {" n't", "n't"}, {" 'm", "'m"},  {" do not", " don't"},
      {" 's", "'s"}, {" 've", "'ve"}, {" 're", "'re"}};
  for (const auto& [from, to] : kRules) text = ReplaceAll(text, from, to);
  return text;
}

StageMaker Map(MapStage::Function function) {
  return [function = std::move(function)] { return std::make_unique<MapStage>(function); };
}

StageMaker MetaspaceMaker(const Config& config) {
  return Map([options = MetaspaceOptions(config)](size_t index, std::string token) {
    const bool drop = index == 0 && options.scheme != MetaspaceOptions::kNever;
    return ReplaceAll(token, options.replacement, drop ? "" : " ");
  });
}

StageMaker WordPieceMaker(const Config& config) {
  return Map([prefix = config.Text("prefix"), clean = config.Flag("cleanup")](size_t index,
                                                                              std::string token) {
    if (index > 0) {
      token = token.starts_with(prefix) ? token.substr(prefix.size()) : " " + token;
    }
    return clean ? CleanUp(std::move(token)) : token;
  });
}

StageMaker ReplaceMaker(const Config& config) {
  return Map(
      [pattern = PatternOf(config), content = config.Text("content")](size_t, std::string token) {
        std::vector<Span> spans;
        if (!pattern.FindAll(token, spans))
          return token;  // a pattern that gives up changes nothing
        std::string out;
        for (const Span& s : spans)
          out += s.match ? content : token.substr(s.begin, s.end - s.begin);
        return out;
      });
}

}  // namespace

Decoder::Decoder(const Config& config) {
  if (!config.IsNull()) Add(config, 0);
}

void Decoder::Add(const Config& config, int depth) {
  const std::string type = config.Type("decoder", features::kDecoders);
  if (type == "Sequence") {
    if (depth > 8) config.Corrupt("sequences nested deeper than 8");
    const Config list = config.At("decoders");
    for (size_t i = 0; i < list.Size(); ++i) Add(list.At(i), depth + 1);
    // An empty sequence joins without spaces, unlike no decoder at all.
    if (makers_.empty()) makers_.emplace_back([] { return std::make_unique<FuseStage>(); });
  } else if (type == "ByteLevel") {
    makers_.emplace_back([] { return std::make_unique<ByteLevelStage>(); });
  } else if (type == "ByteFallback") {
    makers_.emplace_back([] { return std::make_unique<ByteFallbackStage>(); });
  } else if (type == "Fuse") {
    makers_.emplace_back([] { return std::make_unique<FuseStage>(); });
  } else {
    AddText(config, type);
  }
}

void Decoder::AddText(const Config& config, const std::string& type) {
  if (type == "Metaspace") {
    makers_.push_back(MetaspaceMaker(config));
  } else if (type == "WordPiece") {
    makers_.push_back(WordPieceMaker(config));
  } else if (type == "Replace") {
    makers_.push_back(ReplaceMaker(config));
  } else if (type == "Strip") {
    const std::string content = config.Text("content");
    if (content.empty() || content.size() != utf8::Length(static_cast<unsigned char>(content[0]))) {
      config.At("content").Corrupt("expected one character");
    }
    const auto start = static_cast<size_t>(config.At("start").Int(0, 1 << 16));
    const auto stop = static_cast<size_t>(config.At("stop").Int(0, 1 << 16));
    makers_.emplace_back([=] { return std::make_unique<StripStage>(content, start, stop); });
  } else {  // BPEDecoder
    const std::string suffix = config.Text("suffix");
    if (suffix.empty()) config.At("suffix").Unsupported("an empty suffix");
    makers_.emplace_back([=] { return std::make_unique<BpeSuffixStage>(suffix); });
  }
}

class DecodeStream::Sink : public DecodeStage {
 public:
  void Chunk(std::string_view text) override { text_ += text; }
  void EndToken() override {}
  void Finish() override {}
  std::string text_;
};

DecodeStream::DecodeStream(const Decoder& decoder)
    : sink_(std::make_unique<Sink>()), spaces_(decoder.joins_with_spaces()) {
  for (const StageMaker& make : decoder.makers()) stages_.push_back(make());
  for (size_t i = 0; i < stages_.size(); ++i) {
    stages_[i]->Connect(i + 1 < stages_.size() ? stages_[i + 1].get() : sink_.get());
  }
}

DecodeStream::~DecodeStream() = default;
DecodeStream::DecodeStream(DecodeStream&&) noexcept = default;
DecodeStream& DecodeStream::operator=(DecodeStream&&) noexcept = default;

void DecodeStream::Push(std::string_view token) {
  DecodeStage* first = stages_.empty() ? sink_.get() : stages_.front().get();
  if (spaces_ && !first_) first->Chunk(" ");
  first_ = false;
  first->Chunk(token);
  first->EndToken();
}

void DecodeStream::Finish() {
  if (!stages_.empty()) stages_.front()->Finish();
}

std::string DecodeStream::Take() {
  std::string text;
  text.swap(sink_->text_);
  return text;
}

}  // namespace fretsaw
