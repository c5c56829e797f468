#include "base/npy_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace fretsaw {
namespace {

// Magic, version 1.0, length of the text, text padded to this many bytes in all: room for any
// shape.
constexpr size_t kHeaderBytes = 128;

Error CannotWrite(const std::string& path) {
  return {Status::kIo, "cannot write '" + path + "': " + std::strerror(errno)};
}

// Whether `path` names the file that is open as `fd`; not so once another process renamed it.
bool Names(const std::string& path, int fd) {
  struct stat by_name{}, by_fd{};
  return stat(path.c_str(), &by_name) == 0 && fstat(fd, &by_fd) == 0 &&
         by_name.st_ino == by_fd.st_ino && by_name.st_dev == by_fd.st_dev;
}

}  // namespace

Result<NpyFile> NpyFile::Create(const std::string& path, int64_t columns) {
  struct stat info{};
  if (stat(path.c_str(), &info) == 0 && !S_ISREG(info.st_mode)) {
    return Error{Status::kUsage, "'" + path +
                                     "' is not a plain file; the vectors are written beside it "
                                     "and renamed"};
  }
  const std::string part = path + ".part";
  const int fd = open(part.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0666);
  if (fd < 0) return CannotWrite(path);
  // The lock comes before anything is cut: the file may be another process's.
  if (flock(fd, LOCK_EX | LOCK_NB) != 0 || !Names(part, fd)) {
    close(fd);
    return Error{Status::kBusy, "'" + path + "' is being written by another process"};
  }
  std::FILE* file = ftruncate(fd, 0) == 0 ? fdopen(fd, "wb") : nullptr;
  if (file == nullptr) {
    const Error error = CannotWrite(path);
    close(fd);
    return error;
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
  std::remove(part().c_str());  // before the lock ends: afterwards it may be another process's
  std::fclose(file_);
}

Error NpyFile::Failed() const { return CannotWrite(path_); }

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
  if (values.empty()) return Ok{};  // there may be no pointer
  if (std::fwrite(values.data(), sizeof(float), values.size(), file_) != values.size()) {
    return Failed();
  }
  rows_ += std::ssize(values) / columns_;
  return Ok{};
}

VoidResult NpyFile::Finish() {
  if (std::fseek(file_, 0, SEEK_SET) != 0) return Failed();
  if (auto ok = WriteHeader(); !ok) return ok.error();
  if (std::fflush(file_) != 0 || fdatasync(fileno(file_)) != 0) return Failed();
  if (std::rename(part().c_str(), path_.c_str()) != 0) return Failed();
  std::fclose(std::exchange(file_, nullptr));  // everything is on the disk
  return Ok{};
}

}  // namespace fretsaw
