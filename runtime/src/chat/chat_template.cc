#include "chat/chat_template.h"

#include "chat/ast.h"
#include "chat/features.h"
#include "chat/interpreter.h"
#include "chat/lexer.h"
#include "tokenizer/utf8.h"

namespace fretsaw {

struct ChatProgram {
  chat::Block block;
};

namespace {

using nlohmann::ordered_json;

VoidResult CheckUtf8(std::string_view text, const char* what) {
  if (const auto bad = utf8::FirstInvalid(text)) {
    return Error{Status::kBadInput, std::string(what) + " is not valid UTF-8: bad byte at offset " +
                                        std::to_string(*bad)};
  }
  return Ok{};
}

// Depth is bounded before parsing: the DOM and its values are built by recursion.
bool TooDeep(std::string_view json) {
  int depth = 0;
  bool text = false;
  for (size_t i = 0; i < json.size(); ++i) {
    const char c = json[i];
    if (text) {
      if (c == '\\') ++i;
      text = c != '"';
    } else if (c == '"') {
      text = true;
    } else if (c == '[' || c == '{') {
      if (++depth > 64) return true;
    } else if (c == ']' || c == '}') {
      --depth;
    }
  }
  return false;
}

Result<ordered_json> Context(const ChatInput& input) {
  ordered_json context = ordered_json::object();
  context["messages"] = ordered_json::array();
  for (const ChatMessage& m : input.messages) {
    if (auto ok = CheckUtf8(m.role, "a message's role"); !ok) return ok.error();
    if (auto ok = CheckUtf8(m.content, "a message's content"); !ok) return ok.error();
    context["messages"].push_back({{"role", m.role}, {"content", m.content}});
  }
  context["bos_token"] = input.bos_token;
  context["eos_token"] = input.eos_token;
  context["add_generation_prompt"] = input.add_generation_prompt;
  if (input.context_json.empty()) return context;
  if (TooDeep(input.context_json))
    return Error{Status::kBadInput, "chat context: nested deeper than 64 levels"};
  const ordered_json extra = ordered_json::parse(input.context_json, nullptr, false);
  if (!extra.is_object()) return Error{Status::kBadInput, "chat context: not a JSON object"};
  for (const auto& [key, value] : extra.items()) context[key] = value;
  return context;
}

}  // namespace

Result<ChatTemplate> ChatTemplate::Parse(std::string_view source) {
  if (auto ok = CheckUtf8(source, "the chat template"); !ok) return ok.error();
  try {
    auto program = std::make_shared<ChatProgram>();
    program->block = chat::ParseTemplate(source);
    ChatTemplate out;
    out.program_ = std::move(program);
    return out;
  } catch (const chat::TemplateFailure& failure) {
    return failure.error;
  } catch (const std::exception& e) {
    return Error{Status::kInternal, std::string("chat template: ") + e.what()};
  }
}

Result<std::string> ChatTemplate::Render(const ChatInput& input) const {
  try {
    auto context = Context(input);
    if (!context) return context.error();
    chat::Interpreter interpreter(input.now);
    for (const auto& [key, value] : context.value().items())
      interpreter.Define(key, chat::Value::FromJson(value));
    return interpreter.Run(program_->block);
  } catch (const chat::TemplateFailure& failure) {
    return failure.error;
  } catch (const std::bad_alloc&) {
    return Error{Status::kOutOfMemory, "chat template: not enough memory"};
  } catch (const std::exception& e) {
    return Error{Status::kBadInput, std::string("chat template: ") + e.what()};
  }
}

std::string SupportedChatFeatures() {
  ordered_json out;
  const auto list = [&](const char* key, const auto& names) {
    for (const auto name : names) out[key].push_back(std::string(name));
  };
  list("statements", chat::features::kStatements);
  list("filters", chat::features::kFilters);
  list("tests", chat::features::kTests);
  list("methods", chat::features::kMethods);
  list("functions", chat::features::kFunctions);
  return out.dump();
}

}  // namespace fretsaw
