// What a window policy leaves, said page by page: an oracle that shares no arithmetic with it.
#pragma once

#include <cstdint>
#include <vector>

namespace fretsaw::testing {

// Whether the token at `position` is held after `seen` tokens: a page goes once none of its tokens
// is among the first `sinks` or the last `window`.
inline bool Held(int64_t position, int64_t seen, int64_t sinks, int64_t window, int64_t page) {
  const int64_t first = position / page * page;
  for (int64_t i = first; i < first + page; ++i) {
    if (i < sinks || i >= seen - window) return true;
  }
  return false;
}

inline std::vector<int32_t> HeldPositions(int64_t seen, int64_t sinks, int64_t window,
                                          int64_t page) {
  std::vector<int32_t> held;
  for (int64_t i = 0; i < seen; ++i) {
    if (Held(i, seen, sinks, window, page)) held.push_back(static_cast<int32_t>(i));
  }
  return held;
}

}  // namespace fretsaw::testing
