// Makes containers for tests, good and bad, from docs/artifact.md.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "base/sha256.h"

namespace fretsaw::test {

using Bytes = std::vector<uint8_t>;

inline constexpr const char* kManifest = R"({"format_version": 2,
  "model": {"family": "t", "architecture": "T", "kind": "decoder", "context": 16, "vocab_size": 8},
  "generation": {"bos_token_id": null, "eos_token_ids": [2], "pad_token_id": null},
  "weights": {"section": "weights", "tensors": [
    {"name": "a", "dtype": "f32", "shape": [2, 3], "offset": 0, "bytes": 24},
    {"name": "b", "dtype": "f16", "shape": [5], "offset": 64, "bytes": 10}]},
  "kv": {"layers": 2, "kv_heads": 1, "key_size": 4, "value_size": 4, "page_tokens": 4, "dtype": "f32",
    "planes": [{"name": "k_pages", "dtype": "f32", "shape": [4, 4]},
               {"name": "v_pages", "dtype": "f32", "shape": [4, 4]}]},
  "program": {"section": "program", "entry": "step", "chunk_tokens": 4},
  "variants": [{"name": "llvm-x", "section": "code/x", "requires": []}]})";

struct Parts {
  std::string manifest = kManifest;
  std::vector<std::pair<std::string, std::string>> sections = {
      {"weights", std::string(74, 'w')}, {"empty", ""}, {"program", "{}"}, {"code/x", "code"}};
};

template <typename T>
void Put(Bytes* bytes, size_t offset, T value) {
  std::memcpy(bytes->data() + offset, &value, sizeof value);
}

inline void PutDigest(Bytes* bytes, size_t offset, const Digest& digest) {
  std::memcpy(bytes->data() + offset, digest.data(), digest.size());
}

inline size_t TableOffset(const Parts& parts) {
  return (128 + parts.manifest.size() + 63) / 64 * 64;
}

// Makes the digests of header, manifest and table right again after a change to one of them.
inline void Seal(Bytes* bytes, const Parts& parts) {
  const std::span<const uint8_t> all(*bytes);
  PutDigest(bytes, 56,
            Sha256({all.subspan(128, parts.manifest.size()),
                    all.subspan(TableOffset(parts), 128 * parts.sections.size())}));
  PutDigest(bytes, 96, Sha256({all.first(96)}));
}

inline Bytes Build(const Parts& parts) {
  Bytes bytes(TableOffset(parts) + 128 * parts.sections.size(), 0);
  std::memcpy(bytes.data(), "FRETSAW", 8);
  Put<uint32_t>(&bytes, 8, 2);
  Put<uint32_t>(&bytes, 12, 2);
  Put<uint64_t>(&bytes, 24, 128);
  Put<uint64_t>(&bytes, 32, parts.manifest.size());
  Put<uint64_t>(&bytes, 40, TableOffset(parts));
  Put<uint32_t>(&bytes, 48, static_cast<uint32_t>(parts.sections.size()));
  std::memcpy(bytes.data() + 128, parts.manifest.data(), parts.manifest.size());
  size_t entry = TableOffset(parts);
  for (const auto& [name, data] : parts.sections) {
    bytes.resize((bytes.size() + 63) / 64 * 64, 0);
    std::memcpy(bytes.data() + entry, name.data(), name.size());
    Put<uint64_t>(&bytes, entry + 64, bytes.size());
    Put<uint64_t>(&bytes, entry + 72, data.size());
    const std::span raw(reinterpret_cast<const uint8_t*>(data.data()), data.size());
    PutDigest(&bytes, entry + 80, Sha256({raw}));
    bytes.insert(bytes.end(), data.begin(), data.end());
    entry += 128;
  }
  Put<uint64_t>(&bytes, 16, bytes.size());
  Seal(&bytes, parts);
  return bytes;
}

}  // namespace fretsaw::test
