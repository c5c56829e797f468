#include "cli/npy_file.h"

#include <cerrno>
#include <cstring>
#include <utility>

namespace fretsaw::cli {
namespace {

// Magic, version 1.0, length of the text, text padded to this many bytes in all: room for any
// shape.
constexpr size_t kHeaderBytes = 128;

}  // namespace

Result<NpyFile> NpyFile::Create(const std::string& path, int64_t columns) {
  std::FILE* file = std::fopen((path + ".part").c_str(), "wb");
  if (file == nullptr) {
    return Error{Status::kIo, "cannot write " + path + ": " + std::strerror(errno)};
  }
  NpyFile made(path, file, columns);
  if (auto ok = made.WriteHeader(); !ok) return ok.error();
  return made;
}

NpyFile::NpyFile(NpyFile&& other) noexcept
    : path_(std::move(other.path_)),
      file_(std::exchange(other.file_, nullptr)),
      columns_(other.columns_),
      rows_(other.rows_) {}

NpyFile::~NpyFile() {
  if (file_ == nullptr) return;
  std::fclose(file_);
  std::remove(part().c_str());
}

Error NpyFile::Failed() const {
  return {Status::kIo, "cannot write " + path_ + ": " + std::strerror(errno)};
}

VoidResult NpyFile::WriteHeader() {
  std::string text = "{'descr': '<f4', 'fortran_order': False, 'shape': (" + std::to_string(rows_) +
                     ", " + std::to_string(columns_) + "), }";
  text.resize(kHeaderBytes - 10 - 1, ' ');
  text += '\n';
  std::string header = "\x93NUMPY";
  header += '\x01';
  header += '\0';
  header += static_cast<char>(text.size());
  header += '\0';
  header += text;
  if (std::fwrite(header.data(), 1, header.size(), file_) != header.size()) return Failed();
  return Ok{};
}

VoidResult NpyFile::Append(std::span<const float> values) {
  if (std::fwrite(values.data(), sizeof(float), values.size(), file_) != values.size()) {
    return Failed();
  }
  rows_ += std::ssize(values) / columns_;
  return Ok{};
}

VoidResult NpyFile::Finish() {
  if (std::fseek(file_, 0, SEEK_SET) != 0) return Failed();
  if (auto ok = WriteHeader(); !ok) return ok.error();
  std::FILE* file = std::exchange(file_, nullptr);
  if (std::fclose(file) != 0 || std::rename(part().c_str(), path_.c_str()) != 0) {
    const Error error = Failed();
    std::remove(part().c_str());
    return error;
  }
  return Ok{};
}

}  // namespace fretsaw::cli
