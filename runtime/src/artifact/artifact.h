// An opened artifact: the mapped file, its proved structure and its typed manifest. Opening reads
// no section and loads no code.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "artifact/container.h"
#include "artifact/manifest.h"
#include "base/mapped_file.h"
#include "base/result.h"

namespace fretsaw {

class Artifact {
 public:
  // Errors: those of MappedFile::Open, Container::Parse and Manifest::Parse.
  static Result<Artifact> Open(const std::string& path);

  const Container& container() const { return container_; }
  const Manifest& manifest() const { return manifest_; }
  uint64_t file_bytes() const { return file_.bytes().size(); }

  std::span<const uint8_t> weights() const;
  // Text of a section after checking its digest. Errors: kCorrupt.
  Result<std::string_view> Text(std::string_view section) const;

 private:
  Artifact(MappedFile file, Container container, Manifest manifest);

  MappedFile file_;
  Container container_;  // points into file_, whose mapping does not move with it
  Manifest manifest_;
};

}  // namespace fretsaw
