// Native code as a file the dynamic linker can open.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "base/result.h"

namespace fretsaw {

// A copy of `code` in an anonymous memory file, or in a private temporary file (mode 0600, removed
// at once by the destructor) where memory files are not available. The copy is what was verified:
// the artifact on disk can change under a running process, this cannot.
class CodeFile {
 public:
  static Result<CodeFile> Create(std::span<const uint8_t> code);
  CodeFile(CodeFile&& other) noexcept;
  CodeFile& operator=(CodeFile&&) = delete;
  CodeFile(const CodeFile&) = delete;
  ~CodeFile();

  const std::string& path() const { return path_; }

 private:
  CodeFile(int fd, std::string path, bool temporary);

  int fd_;
  std::string path_;
  bool temporary_;
};

}  // namespace fretsaw
