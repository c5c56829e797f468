#include "sched/chunk_plan.h"

#include <algorithm>
#include <numeric>

namespace fretsaw {

std::vector<int64_t> DividePrefill(int64_t budget, std::span<const int64_t> remaining) {
  std::vector<int64_t> chunks(remaining.size(), 0);
  if (remaining.empty()) return chunks;
  chunks[0] = std::min(remaining[0], (budget + 1) / 2);
  int64_t left = budget - chunks[0];

  std::vector<size_t> shortest_first(remaining.size() - 1);
  std::iota(shortest_first.begin(), shortest_first.end(), size_t{1});
  std::stable_sort(shortest_first.begin(), shortest_first.end(),
                   [&](size_t a, size_t b) { return remaining[a] < remaining[b]; });
  auto sharers = std::ssize(shortest_first);
  for (const size_t i : shortest_first) {
    chunks[i] = std::min(remaining[i], (left + sharers - 1) / sharers);
    left -= chunks[i];
    --sharers;
  }
  chunks[0] += std::min(left, remaining[0] - chunks[0]);
  return chunks;
}

}  // namespace fretsaw
