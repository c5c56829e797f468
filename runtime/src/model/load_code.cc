#include "model/load_code.h"

#include <utility>

#include "artifact/variant.h"
#include "base/cpu.h"

namespace fretsaw {
namespace {

constexpr int kMaxThreads = 1024;

}  // namespace

Result<LoadedCode> LoadCode(const Artifact& artifact, bool verify, const std::string& variant,
                            int threads) {
  if (threads < 0 || threads > kMaxThreads) {
    return Error{Status::kUsage, "threads: " + std::to_string(threads) + " is not between 1 and " +
                                     std::to_string(kMaxThreads)};
  }
  const Manifest& manifest = artifact.manifest();
  const Container& container = artifact.container();
  if (verify) {
    if (auto ok = container.VerifyAll(); !ok) return ok.error();
  }
  auto index = ChooseVariant(manifest.variants, CpuFeatures(), variant);
  if (!index) return index.error();
  const VariantInfo& chosen = manifest.variants[index.value()];
  const Section& section = *container.Find(chosen.section);  // proved by Manifest::Parse
  if (auto ok = Container::VerifySection(section); !ok) return ok.error();
  if (manifest.program.section.empty()) {
    return Error{Status::kCorrupt, "corrupt artifact: manifest: program.section: missing"};
  }
  auto program = artifact.Text(manifest.program.section);  // checks its digest
  if (!program) return program.error();
  auto code = StepCode::Load(program.value(), section.bytes, manifest);
  if (!code) return code.error();
  return LoadedCode{std::move(code).value(), chosen.name, threads > 0 ? threads : PhysicalCores()};
}

}  // namespace fretsaw
