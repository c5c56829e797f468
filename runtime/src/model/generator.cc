#include "model/generator.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "model/stop_matcher.h"
#include "sampler/sampler.h"

namespace fretsaw {
namespace {

using Clock = std::chrono::steady_clock;

double MsSince(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

bool IsSet(const std::atomic<bool>* flag) { return flag != nullptr && flag->load(); }

VoidResult CheckRequest(const Session& session, const TextCodec& codec,
                        const GenerateRequest& request) {
  if (request.prompt.empty()) {
    return Error{Status::kBadInput, "the prompt is empty; give at least one token of text"};
  }
  if (request.max_new_tokens < 1) {
    return Error{Status::kUsage, "max-new-tokens: " + std::to_string(request.max_new_tokens) +
                                     " is impossible; it must be at least 1"};
  }
  if (!request.stop.empty() && !codec.available()) {
    return Error{Status::kUnsupported, "stop strings need a tokenizer; the artifact has none"};
  }
  if (std::ssize(request.prompt) > session.room()) {
    return Error{Status::kPromptTooLong, "the prompt has " + std::to_string(request.prompt.size()) +
                                             " tokens, the context has room for " +
                                             std::to_string(session.room()) +
                                             "; shorten the prompt or raise the context"};
  }
  return Ok{};
}

// Text of the generated tokens on its way out, with stop strings taken out of it.
class Output {
 public:
  Output(const TextCodec& codec, const std::vector<std::string>& stop)
      : stream_(codec.available() ? codec.Stream() : nullptr), matcher_(stop) {}

  // The text that became certain with this token.
  Result<std::string> Push(int32_t token) {
    if (stream_ == nullptr) return std::string();
    auto piece = stream_->Push(token);
    if (!piece) return piece.error();
    return matcher_.Push(piece.value());
  }

  Result<std::string> Finish() {
    if (stream_ == nullptr || matcher_.stopped()) return std::string();
    auto rest = stream_->Flush();
    if (!rest) return rest.error();
    std::string text = matcher_.Push(rest.value());
    if (!matcher_.stopped()) text += matcher_.Flush();
    return text;
  }

  bool stopped() const { return matcher_.stopped(); }

 private:
  std::unique_ptr<TextStream> stream_;
  StopMatcher matcher_;
};

struct Loop {
  Session* session;
  const GenerateRequest& request;
  const OnToken& on_token;
  const std::atomic<bool>* cancel;
  std::span<const int32_t> eos;
  Sampler sampler;
  Output output;
  GenerateResult result;

  // Handles one picked token; true when generation is over.
  Result<bool> Accept(int32_t token) {
    result.tokens.push_back(token);
    sampler.Saw(token);
    const bool ended = !request.ignore_eos && std::find(eos.begin(), eos.end(), token) != eos.end();
    auto text = ended ? Result<std::string>(std::string()) : output.Push(token);
    if (!text) return text.error();
    result.text += text.value();
    const bool go_on = !on_token || on_token(token, text.value());
    if (ended) {
      result.finish = FinishReason::kStop;
    } else if (output.stopped()) {
      result.finish = FinishReason::kStopString;
    } else if (!go_on || IsSet(cancel)) {
      result.finish = FinishReason::kCancelled;
    } else if (std::ssize(result.tokens) >= request.max_new_tokens || session->room() == 0) {
      result.finish = FinishReason::kLength;
    } else {
      return false;
    }
    return true;
  }

  Result<GenerateResult> Run() {
    for (const int32_t token : request.prompt) sampler.Saw(token);
    const auto prefill_start = Clock::now();
    auto logits = session->AppendLast(request.prompt, cancel);
    result.prefill_ms = MsSince(prefill_start);
    if (!logits) return logits.error();
    const auto decode_start = Clock::now();
    for (;;) {
      auto token = sampler.Pick(logits.value());
      if (!token) return token.error();
      auto over = Accept(token.value());
      if (!over) return over.error();
      if (over.value()) break;
      const int32_t next[] = {token.value()};
      logits = session->AppendLast(next);
      if (!logits) return logits.error();
      ++result.decode_steps;
      result.decode_ms = MsSince(decode_start);
    }
    auto rest = output.Finish();
    if (!rest) return rest.error();
    if (!rest.value().empty()) {
      result.text += rest.value();
      if (on_token) on_token(-1, rest.value());
    }
    if (output.stopped()) result.finish = FinishReason::kStopString;
    return std::move(result);
  }
};

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
  }
  return "unknown";
}

Result<GenerateResult> Generate(Session* session, const TextCodec& codec,
                                const GenerateRequest& request, const OnToken& on_token,
                                const std::atomic<bool>* cancel) {
  auto sampler = Sampler::Create(request.sampling, session->model().manifest().model.vocab_size);
  if (!sampler) return sampler.error();
  if (auto ok = CheckRequest(*session, codec, request); !ok) return ok.error();
  Loop loop{session,
            request,
            on_token,
            cancel,
            session->model().manifest().generation.eos_token_ids,
            std::move(sampler).value(),
            Output(codec, request.stop),
            {}};
  const int64_t most = std::min(request.max_new_tokens, session->room() + 1);
  loop.result.tokens.reserve(static_cast<size_t>(most));
  return loop.Run();
}

}  // namespace fretsaw
