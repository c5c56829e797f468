#include "sched/batch_line.h"

#include <cmath>
#include <cstdint>
#include <limits>
#include <utility>
#include <vector>

#include "base/json.h"
#include "tokenizer/utf8.h"

namespace fretsaw {
namespace {

using nlohmann::json;

// Thrown inside this file only.
struct Refusal {
  Error error;
};

[[noreturn]] void Refuse(std::string message, Status status = Status::kBadInput) {
  throw Refusal{{status, std::move(message)}};
}

[[noreturn]] void WrongType(const std::string& key, const char* wanted) {
  Refuse("\"" + key + "\" must be " + wanted);
}

std::string TextOf(const std::string& key, const json& value) {
  if (!value.is_string()) WrongType(key, "a string");
  return value.get<std::string>();
}

double NumberOf(const std::string& key, const json& value) {
  if (!value.is_number()) WrongType(key, "a number");
  return value.get<double>();
}

int64_t WholeOf(const std::string& key, const json& value) {
  if (!value.is_number_integer() ||
      (value.is_number_unsigned() && value.get<uint64_t>() > INT64_MAX)) {
    WrongType(key, "a whole number");
  }
  return value.get<int64_t>();
}

std::vector<int32_t> IdsOf(const json& value) {
  if (!value.is_array()) WrongType("ids", "a list of token ids");
  std::vector<int32_t> ids;
  ids.reserve(value.size());
  for (const json& item : value) {
    if (!item.is_number_integer()) WrongType("ids", "a list of token ids");
    const auto id = item.get<int64_t>();
    if (id < 0 || id > INT32_MAX)
      Refuse("token id " + item.dump() + " is outside every vocabulary");
    ids.push_back(static_cast<int32_t>(id));
  }
  return ids;
}

std::vector<ChatTurn> TurnsOf(const json& value) {
  constexpr const char* kWanted = "a list of {\"role\": \"...\", \"content\": \"...\"}";
  if (!value.is_array() || value.empty()) WrongType("messages", kWanted);
  std::vector<ChatTurn> turns;
  for (const json& turn : value) {
    if (!turn.is_object() || turn.size() != 2 || !turn.contains("role") ||
        !turn.contains("content") || !turn["role"].is_string() || !turn["content"].is_string()) {
      WrongType("messages", kWanted);
    }
    turns.push_back({turn["role"].get<std::string>(), turn["content"].get<std::string>()});
  }
  return turns;
}

std::vector<std::string> StopsOf(const json& value) {
  if (value.is_string()) return {value.get<std::string>()};
  if (!value.is_array()) WrongType("stop", "a string or a list of strings");
  std::vector<std::string> stops;
  for (const json& item : value) {
    if (!item.is_string()) WrongType("stop", "a string or a list of strings");
    stops.push_back(item.get<std::string>());
  }
  return stops;
}

template <typename T>
T Get(Result<T> result) {
  if (!result) Refuse(result.error().message, result.error().status);
  return std::move(result).value();
}

std::vector<int32_t> EncodeChat(const std::vector<ChatTurn>& turns, const TextCodec& codec) {
  return Get(codec.Encode(Get(codec.ApplyChat(turns)), false));
}

std::vector<int32_t> EncodePrompt(const std::string& text, const BatchDefaults& defaults,
                                  const TextCodec& codec) {
  if (text.empty()) Refuse("the prompt is empty; give at least one token of text");
  if (!defaults.chat) return Get(codec.Encode(text, true));
  std::vector<ChatTurn> turns;
  if (defaults.system) turns.push_back({"system", *defaults.system});
  turns.push_back({"user", text});
  return EncodeChat(turns, codec);
}

void SetOption(const std::string& key, const json& value, BatchLine* line) {
  GenerateRequest& request = line->request;
  SamplingOptions& sampling = request.sampling;
  if (key == "max_new_tokens") {
    request.max_new_tokens = WholeOf(key, value);
  } else if (key == "temperature") {
    sampling.temperature = NumberOf(key, value);
  } else if (key == "top_k") {
    sampling.top_k = WholeOf(key, value);
  } else if (key == "top_p") {
    sampling.top_p = NumberOf(key, value);
  } else if (key == "min_p") {
    sampling.min_p = NumberOf(key, value);
  } else if (key == "repetition_penalty") {
    sampling.repetition_penalty = NumberOf(key, value);
  } else if (key == "seed") {
    if (!value.is_number_unsigned()) WrongType(key, "a whole number, 0 or more");
    sampling.seed = value.get<uint64_t>();
  } else if (key == "stop") {
    request.stop = StopsOf(value);
  } else if (key == "ignore_eos") {
    if (!value.is_boolean()) WrongType(key, "true or false");
    request.ignore_eos = value.get<bool>();
  } else if (key == "timeout_ms") {
    line->timeout_ms = NumberOf(key, value);
    if (!(*line->timeout_ms >= 0 && *line->timeout_ms <= 1e12)) {
      WrongType(key, "a number of milliseconds, 0 or more");
    }
  } else {
    Refuse("\"" + key +
           "\" is not a key of a request; known are prompt, ids, messages, id, max_new_tokens, "
           "temperature, top_k, top_p, min_p, repetition_penalty, seed, stop, ignore_eos, "
           "timeout_ms");
  }
}

void Fill(const Line& text, const BatchDefaults& defaults, const TextCodec& codec,
          BatchLine* line) {
  if (text.bytes > kMaxBatchLineBytes) {
    Refuse("the line has " + std::to_string(text.bytes) + " bytes, more than the limit of " +
           std::to_string(kMaxBatchLineBytes));
  }
  if (text.text.find_first_not_of(" \t\r") == std::string::npos) Refuse("the line is empty");
  if (utf8::FirstInvalid(text.text)) Refuse("the line is not valid UTF-8");
  auto parsed = ParseJson(text.text, "the line", {kMaxBatchLineBytes, 16, size_t{1} << 20});
  if (!parsed) Refuse(parsed.error().message);
  const json& object = parsed.value();
  if (!object.is_object()) Refuse("the line is not a JSON object");
  if (object.contains("id")) {
    const json& id = object["id"];
    if (!id.is_string() && !id.is_number() && !id.is_null())
      WrongType("id", "a string or a number");
    line->id = id;
  }
  const auto prompts =
      object.contains("prompt") + object.contains("ids") + object.contains("messages");
  if (prompts != 1) Refuse("give one of \"prompt\", \"ids\" and \"messages\"");
  for (const auto& [key, value] : object.items()) {
    if (key == "prompt" || key == "ids" || key == "messages" || key == "id") continue;
    SetOption(key, value, line);
  }
  if (object.contains("prompt")) {
    line->request.prompt = EncodePrompt(TextOf("prompt", object["prompt"]), defaults, codec);
  } else if (object.contains("ids")) {
    line->request.prompt = IdsOf(object["ids"]);
  } else {
    line->request.prompt = EncodeChat(TurnsOf(object["messages"]), codec);
  }
}

}  // namespace

BatchLine ParseBatchLine(const Line& line, const BatchDefaults& defaults, const TextCodec& codec) {
  BatchLine parsed;
  parsed.request = defaults.request;
  try {
    Fill(line, defaults, codec, &parsed);
  } catch (const Refusal& refusal) {
    parsed.error = refusal.error;
  } catch (const std::bad_alloc&) {
    parsed.error = Error{Status::kOutOfMemory, "not enough memory to read the line"};
  }
  return parsed;
}

}  // namespace fretsaw
