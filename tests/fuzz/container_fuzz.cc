// Fuzzes the container and the manifest. The first byte chooses whether the digests of header,
// manifest and table are made right first, so that the fuzzer gets past them.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>
#include <vector>

#include "artifact/container.h"
#include "artifact/manifest.h"
#include "base/sha256.h"

namespace {

void Seal(std::vector<uint8_t>* file) {
  if (file->size() < 128) return;
  uint64_t manifest_bytes = 0, table_offset = 0;
  uint32_t sections = 0;
  std::memcpy(&manifest_bytes, file->data() + 32, 8);
  std::memcpy(&table_offset, file->data() + 40, 8);
  std::memcpy(&sections, file->data() + 48, 4);
  const std::span<const uint8_t> all(*file);
  const uint64_t table_bytes = uint64_t{sections} * 128;
  if (manifest_bytes <= all.size() - 128 && table_offset <= all.size() &&
      table_bytes <= all.size() - table_offset) {
    const auto digest =
        fretsaw::Sha256({all.subspan(128, manifest_bytes), all.subspan(table_offset, table_bytes)});
    std::memcpy(file->data() + 56, digest.data(), digest.size());
  }
  const auto digest = fretsaw::Sha256({all.first(96)});
  std::memcpy(file->data() + 96, digest.data(), digest.size());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  std::vector<uint8_t> file(data + 1, data + size);
  if (data[0] & 1) Seal(&file);
  auto container = fretsaw::Container::Parse(file);
  if (!container) return 0;
  for (const auto& section : container.value().sections()) {
    // Reads every byte: an address sanitizer sees a section that lies outside.
    (void)fretsaw::Container::VerifySection(section);
  }
  auto manifest = fretsaw::Manifest::Parse(container.value());
  if (!manifest) return 0;
  const auto weights = container.value().Find(manifest.value().weights_section)->bytes;
  for (const auto& tensor : manifest.value().tensors) {
    if (tensor.offset > weights.size() || tensor.bytes > weights.size() - tensor.offset) abort();
  }
  return 0;
}
