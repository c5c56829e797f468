// Where the results of a batch go: one line of JSON each, in the order of the requests, such that a
// process that is killed at any moment loses no finished result.
//
// A result whose turn has come is appended to the file. One that is early is appended to a journal
// beside it (PATH.journal) and copied over when its turn comes; the journal is removed at the end.
// A line is written with one write() as soon as it is known, which survives the death of the
// process; fdatasync follows at most once a second and at the end, so a power cut may cost the last
// second. A last line without its newline is cut off when the file is opened again.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/result.h"

namespace fretsaw {

// Every line is an object with "line" (from 1) and "key": what it was made from.
class ResultsFile {
 public:
  // Creates or continues. Errors: kIo, kFileNotFound (cannot create), kBusy (another process has
  // it open), kUsage (not a plain file, or it holds something else than results).
  static Result<ResultsFile> Open(const std::string& path);

  ResultsFile(ResultsFile&& other) noexcept;
  ResultsFile& operator=(ResultsFile&&) = delete;
  ~ResultsFile();

  // Whether the result of line `line` is there. Errors: kUsage (it was made from something else).
  Result<bool> Has(int64_t line, const std::string& key) const;
  // Records the result of a line, which must not be there yet; `text` without newline. Errors: kIo.
  VoidResult Add(int64_t line, const std::string& key, const std::string& text);
  // Makes everything durable and removes the journal. `lines` is how many requests there were.
  // Errors: kIo, kUsage (there are results of more lines, so these were other requests).
  VoidResult Finish(int64_t lines);

  int64_t resumed() const { return resumed_; }                    // results found by Open
  int64_t resumed_failures() const { return resumed_failures_; }  // with an "error"

 private:
  struct Early {
    std::string key;
    int64_t offset = 0, bytes = 0;  // in the journal, with the newline
  };

  explicit ResultsFile(std::string path) : path_(std::move(path)) {}
  VoidResult ReadBack(int fd, bool journal);
  VoidResult Append(int fd, int64_t* size, const std::string& text);
  VoidResult CopyDue();
  VoidResult Sync();
  Error Failed(const char* what) const;

  std::string path_;
  int file_ = -1, journal_ = -1;
  int64_t file_size_ = 0, journal_size_ = 0;
  std::vector<std::string> keys_;   // of the lines in the file
  std::map<int64_t, Early> early_;  // in the journal only
  int64_t resumed_ = 0, resumed_failures_ = 0;
  std::chrono::steady_clock::time_point synced_ = std::chrono::steady_clock::now();
};

}  // namespace fretsaw
