// --embed: a vector for every line of a file, into a NumPy file.
#include <cstdio>

#include "base/npy_file.h"
#include "cli/commands.h"
#include "model/text_embedder.h"
#include "sched/line_reader.h"

namespace fretsaw::cli {
namespace {

constexpr size_t kMaxLineBytes = size_t{16} << 20;

Error AtLine(int64_t number, const Error& error) {
  return {error.status, "line " + std::to_string(number) + ": " + error.message};
}

// 0 or kInterruptedExit.
Result<int> EmbedLines(LineReader* reader, TextEmbedder* embedder) {
  for (;;) {
    while (reader->WouldWait(200)) {
      if (Interrupted().load()) return kInterruptedExit;
    }
    if (Interrupted().load()) return kInterruptedExit;
    auto next = reader->Next();
    if (!next) return next.error();
    if (!next.value()) break;
    Line& line = *next.value();
    if (line.bytes > kMaxLineBytes) {
      return AtLine(line.number, {Status::kBadInput, std::to_string(line.bytes) +
                                                         " bytes; a text has at most 16 MiB"});
    }
    if (!line.text.empty() && line.text.back() == '\r') line.text.pop_back();
    if (auto ok = embedder->Add(line.text); !ok) return AtLine(line.number, ok.error());
  }
  if (auto ok = embedder->Flush(); !ok) return ok.error();
  return 0;
}

VoidResult Report(const Options& options, const EmbedTotals& t, const Encoder& encoder,
                  double load_ms, double total_ms) {
  if (options.json) {
    return PrintJson({{"texts", t.texts},
                      {"tokens", t.tokens},
                      {"truncated", t.truncated},
                      {"width", encoder.width()},
                      {"timing",
                       {{"load_ms", load_ms},
                        {"encode_ms", t.encode_ms},
                        {"total_ms", total_ms},
                        {"texts_s", Rate(t.texts, total_ms)},
                        {"tok_s", Rate(t.tokens, total_ms)}}}});
  }
  if (options.quiet) return Ok{};
  if (t.truncated > 0) {
    std::fprintf(stderr, "fretsaw-run: warning: %lld of %lld texts were cut to %lld tokens\n",
                 static_cast<long long>(t.truncated), static_cast<long long>(t.texts),
                 static_cast<long long>(encoder.context()));
  }
  std::fprintf(stderr, "[load %.0f ms; %lld texts, %lld tokens, %.1f texts/s, %.1f tok/s]\n",
               load_ms, static_cast<long long>(t.texts), static_cast<long long>(t.tokens),
               Rate(t.texts, total_ms), Rate(t.tokens, total_ms));
  return Ok{};
}

}  // namespace

Result<int> RunEmbed(const Options& options, Artifact artifact, Clock::time_point start) {
  auto codec = TextCodec::Load(artifact);
  if (!codec) return codec.error();
  auto encoder = Encoder::Load(std::move(artifact),
                               {options.threads.value_or(0), options.cpu, options.verify});
  if (!encoder) return encoder.error();
  auto reader = LineReader::Open(*options.embed, kMaxLineBytes);
  if (!reader) return reader.error();
  auto file = NpyFile::Create(*options.out, encoder.value()->width());
  if (!file) return file.error();
  TextEmbedder embedder(encoder.value().get(), &codec.value(),
                        [&](std::span<const float> rows) { return file.value().Append(rows); });
  const double load_ms = MsSince(start);
  const auto begin = Clock::now();
  auto code = EmbedLines(&reader.value(), &embedder);
  if (!code || code.value() != 0) return code;
  if (auto ok = file.value().Finish(); !ok) return ok.error();
  auto reported = Report(options, embedder.totals(), *encoder.value(), load_ms, MsSince(begin));
  if (!reported) return reported.error();
  return 0;
}

}  // namespace fretsaw::cli
