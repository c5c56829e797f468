#include "model/model.h"

#include <utility>

#include "model/load_code.h"

namespace fretsaw {
Error Model::NoDecoder(const Manifest& manifest) {
  return {Status::kUnsupported,
          "only decoders generate text; the artifact holds a model of kind '" +
              manifest.model.kind + "'" +
              (manifest.embedding ? ", which embeds texts (fretsaw-run --embed)" : "")};
}

Result<std::unique_ptr<Model>> Model::Load(Artifact artifact, const ModelOptions& options) {
  std::unique_ptr<Model> model(new Model(std::move(artifact)));
  const Manifest& manifest = model->manifest();
  if (manifest.model.kind != "decoder") return NoDecoder(manifest);
  auto loaded = LoadCode(model->artifact_, options.verify, options.variant, options.threads);
  if (!loaded) return loaded.error();
  model->variant_ = loaded.value().variant;
  model->threads_ = loaded.value().threads;
  auto program =
      std::move(loaded.value().code).Bind(manifest, model->artifact_.weights(), model->threads_);
  if (!program) return program.error();
  model->stepper_ = std::make_unique<Stepper>(
      manifest.kv, manifest.program, manifest.model.vocab_size, std::move(program).value());
  model->prefault_ = std::make_unique<Prefault>(model->artifact_.weights());
  return model;
}

}  // namespace fretsaw
