#include "artifact/artifact.h"

#include <utility>

namespace fretsaw {

Artifact::Artifact(MappedFile file, Container container, Manifest manifest)
    : file_(std::move(file)), container_(std::move(container)), manifest_(std::move(manifest)) {}

Result<Artifact> Artifact::Open(const std::string& path) {
  auto file = MappedFile::Open(path);
  if (!file) return file.error();
  const auto named = [&path](Error error) {
    error.message = path + ": " + error.message;
    return error;
  };
  auto container = Container::Parse(file.value().bytes());
  if (!container) return named(container.error());
  auto manifest = Manifest::Parse(container.value());
  if (!manifest) return named(manifest.error());
  return Artifact(std::move(file).value(), std::move(container).value(),
                  std::move(manifest).value());
}

std::span<const uint8_t> Artifact::weights() const {
  return container_.Find(manifest_.weights_section)->bytes;  // its presence is proved by Parse
}

Result<std::string_view> Artifact::Text(std::string_view section) const {
  const Section* found = container_.Find(section);
  if (found == nullptr) {
    return Error{Status::kCorrupt, "the artifact has no section '" + std::string(section) + "'"};
  }
  if (auto ok = Container::VerifySection(*found); !ok) return ok.error();
  return std::string_view(reinterpret_cast<const char*>(found->bytes.data()), found->bytes.size());
}

}  // namespace fretsaw
