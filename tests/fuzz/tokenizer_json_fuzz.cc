// libFuzzer: any bytes as tokenizer.json; what loads must encode, decode and stream alike, without
// a crash.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "chat/chat_template.h"
#include "tokenizer/json_source.h"
#include "tokenizer/tokenizer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  // Text after the first NUL byte is encoded; before it stands the JSON.
  const size_t cut = std::min(bytes.find('\0'), bytes.size());
  const std::string_view text = cut < bytes.size() ? bytes.substr(cut + 1) : "a b\xC3\xA9 <s>12 \n";
  fretsaw::TokenizerLimits limits;
  limits.max_bytes = 1u << 16;
  if (const auto parsed = fretsaw::ChatTemplate::Parse(bytes.substr(0, 512))) {
    (void)parsed.value()
        .Render(
            {.messages = {{"user", "hi"}}, .bos_token = "", .eos_token = "", .context_json = ""})
        .ok();
  }
  const auto loaded = fretsaw::Tokenizer::Load(bytes.substr(0, cut), limits);
  if (!loaded) return 0;
  const auto ids = loaded.value().Encode(text.substr(0, 256), true);
  if (!ids) return 0;
  const auto whole = loaded.value().Decode(ids.value(), false);
  fretsaw::StreamDecoder stream(loaded.value(), false);
  std::string streamed;
  for (const int32_t id : ids.value()) streamed += stream.Push(id).value();
  streamed += stream.Flush();
  if (!whole || whole.value() != streamed) std::abort();
  return 0;
}
