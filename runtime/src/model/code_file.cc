#include "model/code_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <utility>

namespace fretsaw {
namespace {

bool WriteAll(int fd, std::span<const uint8_t> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = write(fd, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return false;
    bytes = bytes.subspan(static_cast<size_t>(written));
  }
  return true;
}

// A path of the descriptor that no earlier one had, by detours. The loader takes a library of the
// same name for one that it has already loaded, and numbers of closed descriptors come again: the
// second model of a process would get the code of the first.
std::string FreshPath(int fd) {
  static std::atomic<uint64_t> made{0};
  std::string path = "/proc/self/fd/";
  for (uint64_t n = made.fetch_add(1); n > 0; n >>= 1) path += n % 2 == 1 ? ".//" : "./";
  return path + std::to_string(fd);
}

}  // namespace

CodeFile::CodeFile(int fd, std::string path, bool temporary)
    : fd_(fd), path_(std::move(path)), temporary_(temporary) {}

CodeFile::CodeFile(CodeFile&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)),
      path_(std::move(other.path_)),
      temporary_(std::exchange(other.temporary_, false)) {}

CodeFile::~CodeFile() {
  if (temporary_) unlink(path_.c_str());
  if (fd_ >= 0) close(fd_);
}

Result<CodeFile> CodeFile::Create(std::span<const uint8_t> code) {
  if (const int fd = memfd_create("fretsaw-code", MFD_CLOEXEC); fd >= 0) {
    // The linker opens the path while the descriptor is open; /proc may be absent in a bare chroot.
    CodeFile file(fd, FreshPath(fd), false);
    if (WriteAll(fd, code) && access(file.path_.c_str(), R_OK) == 0) return file;
  }
  const char* dir = std::getenv("TMPDIR");
  std::string path = std::string(dir != nullptr && *dir != 0 ? dir : "/tmp") + "/fretsaw-XXXXXX.so";
  const int fd = mkostemps(path.data(), 3, O_CLOEXEC);
  if (fd < 0) {
    return Error{Status::kIo, "cannot make a temporary file '" + path +
                                  "' for the artifact's code: " + std::strerror(errno)};
  }
  CodeFile file(fd, path, true);
  if (!WriteAll(fd, code)) {
    return Error{Status::kIo,
                 "cannot write the artifact's code to '" + path + "': " + std::strerror(errno)};
  }
  return file;
}

}  // namespace fretsaw
