#include "sched/results_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/json.h"
#include "sched/line_reader.h"

namespace fretsaw {
namespace {

constexpr size_t kMaxResultBytes = size_t{256} << 20;
constexpr auto kSyncEvery = std::chrono::seconds(1);

std::string JournalPath(const std::string& path) { return path + ".journal"; }

}  // namespace

ResultsFile::ResultsFile(ResultsFile&& other) noexcept
    : path_(std::move(other.path_)),
      file_(std::exchange(other.file_, -1)),
      journal_(std::exchange(other.journal_, -1)),
      file_size_(other.file_size_),
      journal_size_(other.journal_size_),
      keys_(std::move(other.keys_)),
      early_(std::move(other.early_)),
      resumed_(other.resumed_),
      resumed_failures_(other.resumed_failures_),
      synced_(other.synced_) {}

ResultsFile::~ResultsFile() {
  if (file_ >= 0) close(file_);
  if (journal_ >= 0) close(journal_);
}

Error ResultsFile::Failed(const char* what) const {
  return {Status::kIo, std::string("cannot ") + what + " '" + path_ + "': " + std::strerror(errno)};
}

Result<ResultsFile> ResultsFile::Open(const std::string& path) {
  ResultsFile results(path);
  constexpr int kFlags = O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC;
  results.file_ = open(path.c_str(), kFlags, 0666);
  if (results.file_ < 0) {
    return Error{Status::kFileNotFound,
                 "cannot open '" + path + "' for results: " + std::strerror(errno)};
  }
  struct stat info{};
  if (fstat(results.file_, &info) != 0 || !S_ISREG(info.st_mode)) {
    return Error{Status::kUsage,
                 "'" + path + "' is not a plain file; results are read back to go on after a stop"};
  }
  if (flock(results.file_, LOCK_EX | LOCK_NB) != 0) {
    return Error{Status::kBusy, "'" + path + "' is being written by another process"};
  }
  if (auto ok = results.ReadBack(results.file_, false); !ok) return ok.error();
  results.journal_ = open(JournalPath(path).c_str(), kFlags, 0666);
  if (results.journal_ < 0) return results.Failed("open the journal of");
  if (auto ok = results.ReadBack(results.journal_, true); !ok) return ok.error();
  results.resumed_ = std::ssize(results.keys_) + std::ssize(results.early_);
  if (auto ok = results.CopyDue(); !ok) return ok.error();
  return results;
}

VoidResult ResultsFile::ReadBack(int fd, bool journal) {
  const std::string name = journal ? JournalPath(path_) : path_;
  auto reader = LineReader::Open(name, kMaxResultBytes);
  if (!reader) return reader.error();
  int64_t& size = journal ? journal_size_ : file_size_;
  for (;;) {
    auto next = reader.value().Next();
    if (!next) return next.error();
    if (!next.value()) return Ok{};
    const Line& line = *next.value();
    const auto foreign = [&] {
      return Error{Status::kUsage, "'" + name + "' exists and its line " +
                                       std::to_string(line.number) +
                                       " is not a result of a batch; choose another --out"};
    };
    if (!line.complete) {
      // Torn by a kill. Only what we could have begun is cut off.
      const std::string start = "{\"line\":";
      if (line.text.compare(0, start.size(), start, 0, line.text.size()) != 0) return foreign();
      return ftruncate(fd, size) == 0 ? VoidResult(Ok{}) : Failed("shorten");
    }
    const auto parsed = ParseJson(line.text, "result", {kMaxResultBytes});
    if (!parsed || !parsed.value().is_object()) return foreign();
    const auto& result = parsed.value();
    const auto number = result.find("line");
    const auto key = result.find("key");
    if (number == result.end() || !number->is_number_integer() || key == result.end() ||
        !key->is_string()) {
      return foreign();
    }
    const auto of_line = number->get<int64_t>();
    const int64_t bytes = std::ssize(line.text) + 1;
    bool fresh = true;
    if (journal) {
      fresh = of_line > std::ssize(keys_) &&
              early_.try_emplace(of_line, Early{key->get<std::string>(), size, bytes}).second;
    } else {
      if (of_line != std::ssize(keys_) + 1) return foreign();
      keys_.push_back(key->get<std::string>());
    }
    if (fresh && result.contains("error")) ++resumed_failures_;
    size += bytes;
  }
}

Result<bool> ResultsFile::Has(int64_t line, const std::string& key) const {
  const std::string* made_from = nullptr;
  if (line <= std::ssize(keys_)) {
    made_from = &keys_[static_cast<size_t>(line - 1)];
  } else if (const auto early = early_.find(line); early != early_.end()) {
    made_from = &early->second.key;
  }
  if (made_from == nullptr) return false;
  if (*made_from == key) return true;
  return Error{Status::kUsage, "'" + path_ + "' holds a result for line " + std::to_string(line) +
                                   " that was made from another line, other options or another "
                                   "model; choose another --out"};
}

VoidResult ResultsFile::Append(int fd, int64_t* size, const std::string& text) {
  size_t written = 0;
  while (written < text.size()) {
    const ssize_t n = write(fd, text.data() + written, text.size() - written);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return Failed("write results to");
    written += static_cast<size_t>(n);
  }
  *size += std::ssize(text);
  return Ok{};
}

VoidResult ResultsFile::Add(int64_t line, const std::string& key, const std::string& text) {
  if (line == std::ssize(keys_) + 1) {
    if (auto ok = Append(file_, &file_size_, text + "\n"); !ok) return ok;
    keys_.push_back(key);
    if (auto ok = CopyDue(); !ok) return ok;
  } else {
    early_[line] = {key, journal_size_, std::ssize(text) + 1};
    if (auto ok = Append(journal_, &journal_size_, text + "\n"); !ok) return ok;
  }
  return std::chrono::steady_clock::now() - synced_ < kSyncEvery ? VoidResult(Ok{}) : Sync();
}

VoidResult ResultsFile::CopyDue() {
  for (auto due = early_.begin(); due != early_.end() && due->first == std::ssize(keys_) + 1;
       due = early_.erase(due)) {
    std::string text(static_cast<size_t>(due->second.bytes), '\0');
    const ssize_t n = pread(journal_, text.data(), text.size(), due->second.offset);
    if (n != std::ssize(text)) return Failed("read back the journal of");
    if (auto ok = Append(file_, &file_size_, text); !ok) return ok;
    keys_.push_back(due->second.key);
  }
  return Ok{};
}

VoidResult ResultsFile::Sync() {
  synced_ = std::chrono::steady_clock::now();
  // Devices and pipes cannot be synced, and need not be.
  for (const int fd : {file_, journal_}) {
    if (fdatasync(fd) != 0 && errno != EINVAL && errno != EROFS) return Failed("flush");
  }
  return Ok{};
}

VoidResult ResultsFile::Finish(int64_t lines) {
  const int64_t last = early_.empty() ? std::ssize(keys_) : early_.rbegin()->first;
  if (last > lines) {
    return Error{Status::kUsage, "'" + path_ + "' holds a result for line " + std::to_string(last) +
                                     ", but there are only " + std::to_string(lines) +
                                     " lines; choose another --out"};
  }
  if (auto ok = Sync(); !ok) return ok;
  if (unlink(JournalPath(path_).c_str()) != 0) return Failed("remove the journal of");
  return Ok{};
}

}  // namespace fretsaw
