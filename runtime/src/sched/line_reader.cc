#include "sched/line_reader.h"

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace fretsaw {
namespace {

constexpr size_t kBufferBytes = size_t{1} << 16;

int KeepOpen(std::FILE*) { return 0; }

}  // namespace

LineReader::LineReader(std::FILE* file, std::string name, size_t max_bytes)
    : file_(file, file == stdin ? &KeepOpen : &std::fclose),
      name_(std::move(name)),
      max_bytes_(max_bytes) {}

Result<LineReader> LineReader::Open(const std::string& path, size_t max_bytes) {
  if (path == "-") return LineReader(stdin, "standard input", max_bytes);
  std::FILE* file = std::fopen(path.c_str(), "rb");
  if (file == nullptr) {
    return Error{Status::kFileNotFound, "cannot open '" + path + "': " + std::strerror(errno)};
  }
  return LineReader(file, "'" + path + "'", max_bytes);
}

bool LineReader::Fill() {
  if (at_ < buffer_.size()) return true;
  buffer_.resize(kBufferBytes);
  buffer_.resize(std::fread(buffer_.data(), 1, kBufferBytes, file_.get()));
  at_ = 0;
  return !buffer_.empty();
}

Result<std::optional<Line>> LineReader::Next() {
  Line line;
  while (!line.complete && Fill()) {
    const size_t newline = buffer_.find('\n', at_);
    const size_t end = std::min(newline, buffer_.size());
    const size_t room = max_bytes_ - line.text.size();
    line.text.append(buffer_, at_, std::min(end - at_, room));
    line.bytes += end - at_;
    line.complete = newline != std::string::npos;
    at_ = line.complete ? end + 1 : end;
  }
  if (std::ferror(file_.get())) {
    return Error{Status::kIo, "cannot read " + name_ + ": " + std::strerror(errno)};
  }
  if (!line.complete && line.bytes == 0) return std::optional<Line>();
  line.number = ++number_;
  return std::optional<Line>(std::move(line));
}

}  // namespace fretsaw
