// Checks for compilers: would this runtime read it?
#include "capi/handles.h"
#include "chat/chat_template.h"
#include "tokenizer/tokenizer.h"

using namespace fretsaw;  // NOLINT(build/namespaces): the whole file is a thin skin over it

fsw_status fsw_check_tokenizer(const char* json, size_t bytes) {
  return capi::Guard([&]() -> VoidResult {
    if (json == nullptr) return capi::NullArgument("json");
    auto tokenizer = Tokenizer::Load({json, bytes});
    if (!tokenizer) return tokenizer.error();
    return Ok{};
  });
}

fsw_status fsw_check_chat_template(const char* source, size_t bytes) {
  return capi::Guard([&]() -> VoidResult {
    if (source == nullptr) return capi::NullArgument("source");
    auto parsed = ChatTemplate::Parse({source, bytes});
    if (!parsed) return parsed.error();
    return Ok{};
  });
}
