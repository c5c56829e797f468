#include "model/generation.h"

#include <algorithm>
#include <utility>

namespace fretsaw {
namespace {

VoidResult CheckRequest(const GenerateRequest& request, const GenerationRules& rules,
                        int64_t room) {
  if (request.prompt.empty()) {
    return Error{Status::kBadInput, "the prompt is empty; give at least one token of text"};
  }
  for (const int32_t token : request.prompt) {
    if (token < 0 || token >= rules.vocab_size) {
      return Error{Status::kBadInput, "token id " + std::to_string(token) +
                                          " is outside the vocabulary of " +
                                          std::to_string(rules.vocab_size)};
    }
  }
  if (request.max_new_tokens < 1) {
    return Error{Status::kUsage, "max-new-tokens: " + std::to_string(request.max_new_tokens) +
                                     " is impossible; it must be at least 1"};
  }
  if (!request.stop.empty() && (rules.codec == nullptr || !rules.codec->available())) {
    return Error{Status::kUnsupported, "stop strings need a tokenizer; the artifact has none"};
  }
  if (std::ssize(request.prompt) > room) {
    return Error{Status::kPromptTooLong, "the prompt has " + std::to_string(request.prompt.size()) +
                                             " tokens, the context has room for " +
                                             std::to_string(room) +
                                             "; shorten the prompt or raise the context"};
  }
  return Ok{};
}

}  // namespace

const char* FinishReasonName(FinishReason reason) {
  switch (reason) {
    case FinishReason::kStop:
      return "stop";
    case FinishReason::kLength:
      return "length";
    case FinishReason::kStopString:
      return "stop_string";
    case FinishReason::kCancelled:
      return "cancelled";
    case FinishReason::kDeadline:
      return "deadline";
  }
  return "unknown";
}

Generation::Generation(const GenerateRequest& request, const GenerationRules& rules,
                       Sampler sampler)
    : eos_(rules.eos),
      ignore_eos_(request.ignore_eos),
      max_new_tokens_(request.max_new_tokens),
      sampler_(std::move(sampler)),
      stream_(rules.codec != nullptr && rules.codec->available() ? rules.codec->Stream() : nullptr),
      matcher_(request.stop) {
  for (const int32_t token : request.prompt) sampler_.Saw(token);
}

Result<Generation> Generation::Create(const GenerateRequest& request, const GenerationRules& rules,
                                      int64_t room) {
  auto sampler = Sampler::Create(request.sampling, rules.vocab_size);
  if (!sampler) return sampler.error();
  if (auto ok = CheckRequest(request, rules, room); !ok) return ok.error();
  Generation generation(request, rules, std::move(sampler).value());
  // The last token is not appended, so one more than fits can come out.
  const int64_t most = std::min(request.max_new_tokens, room - std::ssize(request.prompt) + 1);
  generation.tokens_.reserve(static_cast<size_t>(most));
  return generation;
}

Result<std::string> Generation::Push(int32_t token) {
  if (stream_ == nullptr) return std::string();
  auto piece = stream_->Push(token);
  if (!piece) return piece.error();
  return matcher_.Push(piece.value());
}

Result<int32_t> Generation::Next(std::span<const float> logits, int64_t room,
                                 const OnToken& on_token, bool cancelled) {
  auto picked = sampler_.Pick(logits);
  if (!picked) return picked.error();
  const int32_t token = picked.value();
  tokens_.push_back(token);
  sampler_.Saw(token);
  const bool ended = !ignore_eos_ && std::find(eos_.begin(), eos_.end(), token) != eos_.end();
  auto text = ended ? Result<std::string>(std::string()) : Push(token);
  if (!text) return text.error();
  text_ += text.value();
  const bool go_on = !on_token || on_token(token, text.value());
  if (ended) {
    finish_ = FinishReason::kStop;
  } else if (matcher_.stopped()) {
    finish_ = FinishReason::kStopString;
  } else if (!go_on || cancelled) {
    finish_ = FinishReason::kCancelled;
  } else if (std::ssize(tokens_) >= max_new_tokens_ || room == 0) {
    finish_ = FinishReason::kLength;
  } else {
    return token;
  }
  if (auto ok = Flush(on_token); !ok) return ok.error();
  return -1;
}

VoidResult Generation::Flush(const OnToken& on_token) {
  if (stream_ == nullptr || matcher_.stopped()) return Ok{};
  auto rest = stream_->Flush();
  if (!rest) return rest.error();
  std::string text = matcher_.Push(rest.value());
  if (matcher_.stopped()) {
    finish_ = FinishReason::kStopString;
  } else {
    text += matcher_.Flush();
  }
  if (text.empty()) return Ok{};
  text_ += text;
  if (on_token) on_token(-1, text);
  return Ok{};
}

VoidResult Generation::End(FinishReason finish, const OnToken& on_token) {
  finish_ = finish;
  return Flush(on_token);
}

}  // namespace fretsaw
