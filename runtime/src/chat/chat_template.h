// Chat templates: the subset of Jinja that checkpoints use, as transformers sets it up
// (trim_blocks, lstrip_blocks, immutable sandbox), interpreted with bounds on steps, memory, output
// and recursion.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace fretsaw {

struct ChatMessage {
  std::string role;     // "system", "user", "assistant", ...
  std::string content;  // UTF-8
};

struct ChatInput {
  std::vector<ChatMessage> messages;
  std::string bos_token;
  std::string eos_token;
  bool add_generation_prompt = false;
  // More variables as one JSON object ("tools", "enable_thinking", or "messages" with structured
  // content). An entry here replaces the field of the same name above. May be empty.
  std::string context_json;
  // Seconds since 1970 that strftime_now sees, read as UTC; 0: the current local time.
  int64_t now = 0;
};

struct ChatProgram;

// Immutable after Parse; thread-safe.
class ChatTemplate {
 public:
  // Errors: kCorrupt (syntax), kUnsupported (a construct outside the subset), with the line.
  static Result<ChatTemplate> Parse(std::string_view source);

  // Errors: kBadInput for raise_exception, an undefined value used as one, a limit reached; with
  // the line.
  Result<std::string> Render(const ChatInput& input) const;

 private:
  std::shared_ptr<const ChatProgram> program_;
};

// Filters, tests, methods, functions and statements of the subset, as JSON.
std::string SupportedChatFeatures();

}  // namespace fretsaw
