#include "sched/line_reader.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

namespace fretsaw {
namespace {

constexpr size_t kBufferBytes = size_t{1} << 16;

}  // namespace

LineReader::LineReader(int fd, std::string name, size_t max_bytes)
    : fd_(fd), name_(std::move(name)), max_bytes_(max_bytes) {}

LineReader::LineReader(LineReader&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)),
      name_(std::move(other.name_)),
      max_bytes_(other.max_bytes_),
      number_(other.number_),
      buffer_(std::move(other.buffer_)),
      at_(other.at_) {}

LineReader::~LineReader() {
  if (fd_ > STDIN_FILENO) close(fd_);
}

Result<LineReader> LineReader::Open(const std::string& path, size_t max_bytes) {
  if (path == "-") return LineReader(STDIN_FILENO, "standard input", max_bytes);
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) {
    return Error{Status::kFileNotFound, "cannot open '" + path + "': " + std::strerror(errno)};
  }
  return LineReader(fd, "'" + path + "'", max_bytes);
}

bool LineReader::WouldWait(int ms) const {
  if (buffer_.find('\n', at_) != std::string::npos) return false;
  pollfd ready{fd_, POLLIN, 0};
  const int n = poll(&ready, 1, ms);
  return n == 0 || (n < 0 && errno == EINTR);
}

// Makes sure that there is a byte to look at; false at the end of the file.
Result<bool> LineReader::Fill() {
  if (at_ < buffer_.size()) return true;
  buffer_.resize(kBufferBytes);
  ssize_t n = -1;
  do {
    n = read(fd_, buffer_.data(), kBufferBytes);
  } while (n < 0 && errno == EINTR);
  buffer_.resize(static_cast<size_t>(std::max<ssize_t>(n, 0)));
  at_ = 0;
  if (n < 0) return Error{Status::kIo, "cannot read " + name_ + ": " + std::strerror(errno)};
  return n > 0;
}

Result<std::optional<Line>> LineReader::Next() {
  Line line;
  while (!line.complete) {
    auto filled = Fill();
    if (!filled) return filled.error();
    if (!filled.value()) break;
    const size_t newline = buffer_.find('\n', at_);
    const size_t end = std::min(newline, buffer_.size());
    const size_t room = max_bytes_ - line.text.size();
    line.text.append(buffer_, at_, std::min(end - at_, room));
    line.bytes += end - at_;
    line.complete = newline != std::string::npos;
    at_ = line.complete ? end + 1 : end;
  }
  if (!line.complete && line.bytes == 0) return std::optional<Line>();
  line.number = ++number_;
  return std::optional<Line>(std::move(line));
}

}  // namespace fretsaw
