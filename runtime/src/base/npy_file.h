// A NumPy file of f32 rows that grows while it is written, and appears whole.
#pragma once

#include <cstdint>
#include <cstdio>
#include <span>
#include <string>

#include "base/result.h"

namespace fretsaw {

// Writes PATH.part; Finish renames it to PATH, so PATH is what it was or whole, also after a kill
// or a power cut. Destroyed without Finish, it removes what it wrote; what a kill leaves of
// PATH.part the next run overwrites.
class NpyFile {
 public:
  // Errors: kUsage (PATH is something else than a plain file), kBusy (another process writes it),
  // kIo.
  static Result<NpyFile> Create(const std::string& path, int64_t columns);

  NpyFile(NpyFile&& other) noexcept;
  NpyFile& operator=(NpyFile&&) = delete;
  ~NpyFile();

  // Appends whole rows. Errors: kIo.
  VoidResult Append(std::span<const float> values);
  // Writes the shape, closes the file and gives it its name. Errors: kIo.
  VoidResult Finish();

  int64_t rows() const { return rows_; }

 private:
  NpyFile(std::string path, std::FILE* file, int64_t columns)
      : path_(std::move(path)), file_(file), columns_(columns) {}
  std::string part() const { return path_ + ".part"; }
  VoidResult WriteHeader();
  Error Failed() const;

  std::string path_;
  std::FILE* file_;  // null once finished
  int64_t columns_, rows_ = 0;
};

}  // namespace fretsaw
