// Finds stop strings in text that arrives in pieces.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace fretsaw {

class StopMatcher {
 public:
  // Empty stop strings are ignored.
  explicit StopMatcher(std::vector<std::string> stops);

  // Adds a piece; returns the text that can no longer be part of a stop string. Text from the first
  // stop string on is dropped, and stopped() becomes true.
  std::string Push(std::string_view piece);
  // What was held back, when nothing more will come.
  std::string Flush();
  bool stopped() const { return stopped_; }

 private:
  std::vector<std::string> stops_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace fretsaw
