// --embed: a vector for every line of a file, into a NumPy file.
#include <cstdio>
#include <fstream>
#include <iostream>

#include "cli/commands.h"
#include "cli/npy_file.h"
#include "model/encoder.h"

namespace fretsaw::cli {
namespace {

constexpr int64_t kStepsAtOnce = 8;  // steps' worth of texts that are read before they are embedded

struct Totals {
  int64_t texts = 0, tokens = 0;
  double embed_ms = 0;
};

// Reads the input line by line; a last line without an end counts, an empty file has none.
class Texts {
 public:
  static Result<Texts> Open(const std::string& path) {
    Texts texts;
    if (path == "-") return texts;
    texts.file_ = std::make_unique<std::ifstream>(path, std::ios::binary);
    if (!*texts.file_) return Error{Status::kFileNotFound, "cannot open " + path};
    return texts;
  }

  bool Next(std::string* line) {
    std::istream& in = file_ ? *file_ : std::cin;
    if (!std::getline(in, *line)) return false;
    if (!line->empty() && line->back() == '\r') line->pop_back();
    return true;
  }

 private:
  std::unique_ptr<std::ifstream> file_;
};

Result<int> EmbedAll(Encoder* encoder, const TextCodec& codec, Texts* texts, NpyFile* file,
                     Totals* totals) {
  std::vector<std::vector<int32_t>> batch;
  std::vector<float> vectors;
  std::string line;
  for (bool more = true; more;) {
    batch.clear();
    vectors.clear();
    int64_t tokens = 0;
    while (tokens < kStepsAtOnce * encoder->chunk_tokens() && (more = texts->Next(&line))) {
      auto ids = EncodeTruncated(codec, line, encoder->context());
      if (!ids) {
        return Error{ids.error().status,
                     "line " + std::to_string(totals->texts + 1) + ": " + ids.error().message};
      }
      tokens += std::max<int64_t>(1, std::ssize(ids.value()));
      totals->texts += 1;
      totals->tokens += std::ssize(ids.value());
      batch.push_back(std::move(ids).value());
    }
    if (Interrupted().load()) return kInterruptedExit;
    const auto start = Clock::now();
    if (auto ok = encoder->Embed(batch, &vectors); !ok) return ok.error();
    totals->embed_ms += MsSince(start);
    if (auto ok = file->Append(vectors); !ok) return ok.error();
  }
  if (auto ok = file->Finish(); !ok) return ok.error();
  return 0;
}

}  // namespace

Result<int> RunEmbed(const Options& options, Artifact artifact, Clock::time_point start) {
  auto texts = Texts::Open(*options.embed);
  if (!texts) return texts.error();
  auto codec = TextCodec::Load(artifact);
  if (!codec) return codec.error();
  auto encoder = Encoder::Load(std::move(artifact),
                               {options.threads.value_or(0), options.cpu, options.verify});
  if (!encoder) return encoder.error();
  auto file = NpyFile::Create(*options.out, encoder.value()->width());
  if (!file) return file.error();
  const double load_ms = MsSince(start);
  const auto begin = Clock::now();
  Totals totals;
  auto code =
      EmbedAll(encoder.value().get(), codec.value(), &texts.value(), &file.value(), &totals);
  if (!code || code.value() != 0) return code;
  const double total_ms = MsSince(begin);
  if (options.json) {
    auto printed = PrintJson({{"texts", totals.texts},
                              {"tokens", totals.tokens},
                              {"width", encoder.value()->width()},
                              {"timing",
                               {{"load_ms", load_ms},
                                {"embed_ms", totals.embed_ms},
                                {"total_ms", total_ms},
                                {"tok_s", Rate(totals.tokens, total_ms)}}}});
    if (!printed) return printed.error();
  } else if (!options.quiet) {
    std::fprintf(stderr, "[load %.0f ms; %lld texts, %lld tokens, %.1f texts/s, %.1f tok/s]\n",
                 load_ms, static_cast<long long>(totals.texts),
                 static_cast<long long>(totals.tokens), Rate(totals.texts, total_ms),
                 Rate(totals.tokens, total_ms));
  }
  return 0;
}

}  // namespace fretsaw::cli
