#include "model/text_codec.h"

#include <optional>
#include <utility>

#include "chat/chat_template.h"
#include "tokenizer/tokenizer.h"

namespace fretsaw {
namespace {

Error NoTokenizer() {
  return {Status::kUnsupported,
          "the artifact has no tokenizer: give token ids, or compile a checkpoint that has one"};
}

class TokenizerStream : public TextStream {
 public:
  explicit TokenizerStream(const Tokenizer& tokenizer) : decoder_(tokenizer, true) {}
  Result<std::string> Push(int32_t token) override { return decoder_.Push(token); }
  Result<std::string> Flush() override { return decoder_.Flush(); }

 private:
  StreamDecoder decoder_;
};

}  // namespace

struct TextCodec::State {
  std::optional<Tokenizer> tokenizer;
  std::optional<ChatTemplate> chat;
  TokenizerInfo info;
};

TextCodec::TextCodec(std::unique_ptr<State> state) : state_(std::move(state)) {}
TextCodec::TextCodec(TextCodec&&) noexcept = default;
TextCodec::~TextCodec() = default;

Result<TextCodec> TextCodec::Load(const Artifact& artifact) {
  auto state = std::make_unique<State>();
  if (!artifact.manifest().tokenizer) return TextCodec(std::move(state));
  state->info = *artifact.manifest().tokenizer;
  auto json = artifact.Text(state->info.section);
  if (!json) return json.error();
  auto tokenizer = Tokenizer::Load(json.value());
  if (!tokenizer) return tokenizer.error();
  state->tokenizer = std::move(tokenizer).value();
  if (!state->info.chat_template_section.empty()) {
    auto source = artifact.Text(state->info.chat_template_section);
    if (!source) return source.error();
    auto chat = ChatTemplate::Parse(source.value());
    if (!chat) return chat.error();
    state->chat = std::move(chat).value();
  }
  return TextCodec(std::move(state));
}

bool TextCodec::available() const { return state_->tokenizer.has_value(); }
bool TextCodec::has_chat_template() const { return state_->chat.has_value(); }

Result<std::vector<int32_t>> TextCodec::Encode(std::string_view text,
                                               bool add_special_tokens) const {
  if (!available()) return NoTokenizer();
  return state_->tokenizer->Encode(text, add_special_tokens);
}

Result<std::string> TextCodec::Decode(std::span<const int32_t> ids,
                                      bool skip_special_tokens) const {
  if (!available()) return NoTokenizer();
  return state_->tokenizer->Decode(ids, skip_special_tokens);
}

Result<std::string> TextCodec::ApplyChat(const std::vector<ChatTurn>& turns) const {
  if (!has_chat_template()) {
    return Error{Status::kUnsupported,
                 "the artifact has no chat template: give the prompt without --chat"};
  }
  ChatInput input;
  for (const ChatTurn& turn : turns) input.messages.push_back({turn.role, turn.content});
  input.bos_token = state_->info.bos_token;
  input.eos_token = state_->info.eos_token;
  input.add_generation_prompt = true;
  return state_->chat->Render(input);
}

std::unique_ptr<TextStream> TextCodec::Stream() const {
  return std::make_unique<TokenizerStream>(*state_->tokenizer);
}

}  // namespace fretsaw
