// Reads a file of lines that nobody vouches for: a line of any length takes bounded memory.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/result.h"

namespace fretsaw {

struct Line {
  int64_t number = 0;     // from 1
  std::string text;       // without the newline; the first max_bytes of a longer line
  uint64_t bytes = 0;     // of the whole line, without the newline
  bool complete = false;  // ended by a newline
};

class LineReader {
 public:
  // "-" is standard input. Errors: kFileNotFound.
  static Result<LineReader> Open(const std::string& path, size_t max_bytes);
  LineReader(LineReader&& other) noexcept;
  LineReader& operator=(LineReader&&) = delete;
  ~LineReader();

  // The next line, or nothing at the end. What follows the last newline is a line if it is not
  // empty. Errors: kIo.
  Result<std::optional<Line>> Next();
  // Whether Next would wait for somebody to write: a pipe without anything to read for `ms`
  // milliseconds, or until a signal comes.
  bool WouldWait(int ms) const;

 private:
  LineReader(int fd, std::string name, size_t max_bytes);
  Result<bool> Fill();

  int fd_;
  std::string name_;
  size_t max_bytes_;
  int64_t number_ = 0;
  std::string buffer_;
  size_t at_ = 0;
};

}  // namespace fretsaw
