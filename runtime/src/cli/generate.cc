#include <cstdio>

#include "cli/commands.h"
#include "cli/input.h"
#include "model/generator.h"

namespace fretsaw::cli {
namespace {

VoidResult Report(const Options& options, const Session& session, const Manifest& manifest,
                  size_t prompt_tokens, double load_ms, const GenerateResult& result) {
  const auto prompt = static_cast<int64_t>(prompt_tokens);
  const double prefill_rate = Rate(prompt, result.prefill_ms);
  const double decode_rate = Rate(result.decode_steps, result.decode_ms);
  if (options.json) {
    return PrintJson({{"prompt_tokens", prompt},
                      {"tokens", result.tokens},
                      {"text", result.text},
                      {"finish_reason", FinishReasonName(result.finish)},
                      {"timing",
                       {{"load_ms", load_ms},
                        {"prefill_ms", result.prefill_ms},
                        {"prefill_tok_s", prefill_rate},
                        {"decode_tok_s", decode_rate}}},
                      {"memory", MemoryJson(session, manifest)}});
  }
  if (std::fputs("\n", stdout) < 0 || std::fflush(stdout) != 0) {
    return Error{Status::kIo, "cannot write to standard output"};
  }
  if (!options.quiet) {
    std::fprintf(stderr,
                 "[load %.0f ms; prefill %lld tokens, %.1f tok/s; decode %zu tokens, %.1f tok/s; "
                 "%s]\n",
                 load_ms, static_cast<long long>(prompt), prefill_rate, result.tokens.size(),
                 decode_rate, FinishReasonName(result.finish));
  }
  return Ok{};
}

}  // namespace

Result<int> RunGenerate(const Options& options, Artifact artifact, Clock::time_point start) {
  auto codec = TextCodec::Load(artifact);
  if (!codec) return codec.error();
  auto loaded =
      Model::Load(std::move(artifact), {options.threads.value_or(0), options.cpu, options.verify});
  if (!loaded) return loaded.error();
  Model& model = *loaded.value();
  double load_ms = MsSince(start);

  GenerateRequest request;
  auto prompt = ReadPrompt(options, codec.value());
  if (!prompt) return prompt.error();
  request.prompt = std::move(prompt).value();
  request.max_new_tokens = options.max_new_tokens;
  request.sampling = options.sampling;
  request.stop = options.stop;
  request.ignore_eos = options.ignore_eos;

  const int64_t context = model.manifest().model.context;
  const int64_t prompt_tokens = std::ssize(request.prompt);
  const int64_t room = options.context.value_or(context);
  if (room <= context && prompt_tokens > room) {
    return Error{Status::kPromptTooLong, "the prompt has " + std::to_string(prompt_tokens) +
                                             " tokens, the context is " + std::to_string(room) +
                                             "; shorten the prompt" +
                                             (options.context ? " or raise --context" : "")};
  }
  // The last token is sampled and never appended, so prompt + max_new - 1 tokens are enough; the
  // sum cannot overflow because the second term is capped first.
  const int64_t wanted = prompt_tokens + std::min(request.max_new_tokens, context);
  const auto session_start = Clock::now();
  auto session = Session::Create(&model, options.context.value_or(std::min(context, wanted)));
  if (!session) return session.error();
  load_ms += MsSince(session_start);

  bool write_failed = false;
  const OnToken stream = [&](int32_t, std::string_view text) {
    if (options.json) return true;
    write_failed = write_failed ||
                   std::fwrite(text.data(), 1, text.size(), stdout) != text.size() ||
                   std::fflush(stdout) != 0;
    return !write_failed;
  };
  auto result = Generate(session.value().get(), codec.value(), request, stream, &Interrupted());
  if (!result && result.error().status == Status::kCancelled) return kInterruptedExit;
  if (!result) return result.error();
  if (write_failed) return Error{Status::kIo, "cannot write to standard output"};
  auto reported = Report(options, *session.value(), model.manifest(), request.prompt.size(),
                         load_ms, result.value());
  if (!reported) return reported.error();
  return result.value().finish == FinishReason::kCancelled ? kInterruptedExit : 0;
}

}  // namespace fretsaw::cli
