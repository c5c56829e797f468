// The container of an artifact: header, manifest text, section table, sections (docs/artifact.md).
//
// Parse() proves everything about structure before it makes a pointer: magic, versions, sizes,
// bounds, alignment, order, names, zero padding, and the digests of the header, the manifest and
// the table. The digest of a section is checked when VerifySection or VerifyAll is asked for it.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "base/sha256.h"

namespace fretsaw {

inline constexpr uint32_t kFormatVersion = 2;
inline constexpr size_t kAlignment = 64;  // bytes, of the table, of sections and of tensors

struct Section {
  std::string_view name;           // points into the file
  std::span<const uint8_t> bytes;  // points into the file
  uint64_t offset = 0;             // of the first byte in the file
  Digest digest{};
};

class Container {
 public:
  // `file` must outlive the Container. Errors: kBadMagic, kNewerVersion, kTruncated, kCorrupt.
  static Result<Container> Parse(std::span<const uint8_t> file);

  std::string_view manifest() const { return manifest_; }
  std::span<const Section> sections() const { return sections_; }
  const Section* Find(std::string_view name) const;  // nullptr when absent

  static VoidResult VerifySection(const Section& section);
  VoidResult VerifyAll() const;

 private:
  std::string_view manifest_;
  std::vector<Section> sections_;
};

}  // namespace fretsaw
