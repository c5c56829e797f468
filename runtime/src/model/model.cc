#include "model/model.h"

#include <utility>

#include "artifact/variant.h"
#include "base/cpu.h"
#include "model/tvm_program.h"

namespace fretsaw {
namespace {

constexpr int kMaxThreads = 1024;

}  // namespace

Result<std::unique_ptr<Model>> Model::Load(Artifact artifact, const ModelOptions& options) {
  if (options.threads < 0 || options.threads > kMaxThreads) {
    return Error{Status::kUsage, "threads: " + std::to_string(options.threads) +
                                     " is not between 1 and " + std::to_string(kMaxThreads)};
  }
  std::unique_ptr<Model> model(new Model(std::move(artifact)));
  const Manifest& manifest = model->manifest();
  const Container& container = model->artifact_.container();
  if (manifest.model.kind != "decoder") {
    return Error{Status::kUnsupported,
                 "this runtime runs decoders; the artifact holds a model of "
                 "kind '" +
                     manifest.model.kind + "'"};
  }
  if (options.verify) {
    if (auto ok = container.VerifyAll(); !ok) return ok.error();
  }
  auto index = ChooseVariant(manifest.variants, CpuFeatures(), options.variant);
  if (!index) return index.error();
  const VariantInfo& variant = manifest.variants[index.value()];
  model->variant_ = variant.name;
  model->threads_ = options.threads > 0 ? options.threads : PhysicalCores();

  const Section& section = *container.Find(variant.section);  // proved by Manifest::Parse
  if (auto ok = Container::VerifySection(section); !ok) return ok.error();
  auto code = TvmCode::Load(section.bytes, manifest.program.entry);
  if (!code) return code.error();
  auto program =
      std::move(code).value().Bind(manifest, model->artifact_.weights(), model->threads_);
  if (!program) return program.error();
  model->stepper_ = std::make_unique<Stepper>(
      manifest.kv, manifest.program, manifest.model.vocab_size, std::move(program).value());
  model->prefault_ = std::make_unique<Prefault>(model->artifact_.weights());
  return model;
}

}  // namespace fretsaw
