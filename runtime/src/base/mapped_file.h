// A whole file mapped read-only. The mapping is private and never written through.
//
// A file that is shortened by another process while mapped raises SIGBUS on access, as with every
// mmap; replace artifacts by renaming a new file over them, never by writing into them.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "base/result.h"

namespace fretsaw {

class MappedFile {
 public:
  // Errors: kFileNotFound (cannot open, not a regular file, cannot map).
  static Result<MappedFile> Open(const std::string& path);

  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile();

  std::span<const uint8_t> bytes() const& { return {data_, size_}; }
  std::span<const uint8_t> bytes() && = delete;

 private:
  MappedFile(const uint8_t* data, size_t size) : data_(data), size_(size) {}

  const uint8_t* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace fretsaw
