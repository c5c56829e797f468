#include "model/encoder.h"

#include <algorithm>
#include <utility>

#include "model/load_code.h"

namespace fretsaw {

Encoder::Encoder(const Manifest& manifest, std::unique_ptr<EncodeProgram> program)
    : width_(manifest.embedding ? manifest.embedding->width : 0),
      context_(manifest.model.context),
      vocab_size_(manifest.model.vocab_size),
      chunk_tokens_(std::max(manifest.program.chunk_tokens, manifest.model.context)),
      program_(std::move(program)) {}

Error Encoder::NoEncoder(const Manifest& manifest) {
  return {Status::kUnsupported, "only encoders embed texts; the artifact holds a model of kind '" +
                                    manifest.model.kind +
                                    "', which generates text (fretsaw-run --prompt)"};
}

Result<std::unique_ptr<Encoder>> Encoder::Load(Artifact artifact, const ModelOptions& options) {
  auto owned = std::make_unique<Artifact>(std::move(artifact));
  const Manifest& manifest = owned->manifest();
  if (!manifest.embedding) return NoEncoder(manifest);
  if (manifest.embedding->pooling.empty()) {
    return Error{
        Status::kUnsupported,
        "the artifact gives one vector per token, because its checkpoint had no modules.json "
        "that says how to pool them; add sentence-transformers' modules.json and "
        "1_Pooling/config.json to the checkpoint and compile it again"};
  }
  if (manifest.program.chunk_tokens < manifest.model.context) {
    return Error{Status::kCorrupt, "program.chunk_tokens is " +
                                       std::to_string(manifest.program.chunk_tokens) +
                                       ", less than the longest text of an encoder"};
  }
  auto loaded = LoadCode(*owned, options.verify, options.variant, options.threads);
  if (!loaded) return loaded.error();
  const int threads = loaded.value().threads;
  auto program = std::move(loaded.value().code).BindEncoder(manifest, owned->weights(), threads);
  if (!program) return program.error();
  auto encoder = std::make_unique<Encoder>(manifest, std::move(program).value());
  encoder->variant_ = loaded.value().variant;
  encoder->threads_ = threads;
  encoder->prefault_ = std::make_unique<Prefault>(owned->weights());
  encoder->artifact_ = std::move(owned);
  return encoder;
}

VoidResult Encoder::Check(std::span<const int32_t> sequence) const {
  if (std::ssize(sequence) > context_) {
    return Error{Status::kPromptTooLong, "a text of " + std::to_string(sequence.size()) +
                                             " tokens is over the model's " +
                                             std::to_string(context_)};
  }
  for (const int32_t id : sequence) {
    if (id < 0 || id >= vocab_size_) {
      return Error{Status::kBadInput, "token id " + std::to_string(id) +
                                          " is outside the vocabulary of " +
                                          std::to_string(vocab_size_)};
    }
  }
  return Ok{};
}

VoidResult Encoder::Embed(std::span<const std::vector<int32_t>> sequences,
                          std::vector<float>* out) {
  for (const auto& sequence : sequences) {
    if (auto ok = Check(sequence); !ok) return ok.error();
  }
  const size_t before = out->size();
  cu_.assign(1, 0);
  tokens_.clear();
  positions_.clear();
  for (size_t i = 0; i < sequences.size(); ++i) {
    const std::vector<int32_t>& ids = sequences[i];
    // Texts without tokens count too: a step holds at most as many texts as tokens.
    const bool full =
        std::ssize(tokens_) + std::ssize(ids) > chunk_tokens_ || std::ssize(cu_) > chunk_tokens_;
    if (full) {
      if (auto ok = Step(out); !ok) {
        out->resize(before);
        return ok.error();
      }
    }
    for (size_t p = 0; p < ids.size(); ++p) positions_.push_back(static_cast<int32_t>(p));
    tokens_.insert(tokens_.end(), ids.begin(), ids.end());
    cu_.push_back(static_cast<int32_t>(tokens_.size()));
  }
  if (cu_.size() > 1) {
    if (auto ok = Step(out); !ok) {
      out->resize(before);
      return ok.error();
    }
  }
  return Ok{};
}

VoidResult Encoder::Step(std::vector<float>* out) {
  auto made = program_->Encode({tokens_, positions_, cu_});
  if (!made) return made.error();
  out->insert(out->end(), made.value().begin(), made.value().end());
  cu_.assign(1, 0);
  tokens_.clear();
  positions_.clear();
  return Ok{};
}

}  // namespace fretsaw
