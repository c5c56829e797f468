// Result<T>: a value or an Error. The library reports every failure through it; exceptions of other
// libraries are caught where they are called and turned into one of these.
#pragma once

#include <string>
#include <utility>
#include <variant>

namespace fretsaw {

// One list for the whole runtime. The numeric value is the exit code of fretsaw-run and part of the
// C interface, so entries are only ever appended.
enum class Status : int {
  kOk = 0,
  kInternal = 1,        // our bug
  kUsage = 2,           // impossible options
  kFileNotFound = 3,    // cannot open, cannot map
  kBadMagic = 4,        // not an artifact
  kNewerVersion = 5,    // artifact needs a newer runtime
  kTruncated = 6,       // shorter than it says
  kCorrupt = 7,         // bounds, overlap or digest wrong
  kUnsupportedCpu = 8,  // no code variant runs on this machine
  kBadInput = 9,        // empty prompt, invalid UTF-8
  kPromptTooLong = 10,  // over the model's context
  kUnsupported = 11,    // a feature the artifact asks for and this runtime lacks
  kOutOfMemory = 12,
  kIo = 13,  // disk full, write failed
  kCancelled = 14,
  kBusy = 15,  // a bounded queue is full
};

// Name of a status as used in --json output, e.g. "corrupt".
const char* StatusName(Status status);

struct Error {
  Status status = Status::kInternal;
  std::string message;  // what, where, what to do; no trailing newline
};

template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::move(value)) {}      // NOLINT(runtime/explicit)
  Result(Error error) : state_(std::move(error)) {}  // NOLINT(runtime/explicit)

  bool ok() const { return std::holds_alternative<T>(state_); }
  explicit operator bool() const { return ok(); }

  T& value() & { return std::get<T>(state_); }
  const T& value() const& { return std::get<T>(state_); }
  T&& value() && { return std::get<T>(std::move(state_)); }
  const Error& error() const { return std::get<Error>(state_); }

 private:
  std::variant<T, Error> state_;
};

struct Ok {};
using VoidResult = Result<Ok>;

}  // namespace fretsaw
