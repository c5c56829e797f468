#include "sched/chunk_plan.h"

#include <algorithm>
#include <numeric>

namespace fretsaw {

std::vector<int64_t> DividePrefill(int64_t budget, std::span<const int64_t> remaining,
                                   const ChunkRule& rule) {
  const auto piece = [&](size_t i, int64_t most) { return NextChunk(rule, 0, remaining[i], most); };
  std::vector<int64_t> chunks(remaining.size(), 0);
  if (remaining.empty()) return chunks;
  chunks[0] = piece(0, (budget + 1) / 2);
  if (chunks[0] == 0) chunks[0] = piece(0, budget);
  int64_t left = budget - chunks[0];

  std::vector<size_t> shortest_first(remaining.size() - 1);
  std::iota(shortest_first.begin(), shortest_first.end(), size_t{1});
  std::stable_sort(shortest_first.begin(), shortest_first.end(),
                   [&](size_t a, size_t b) { return remaining[a] < remaining[b]; });
  auto sharers = std::ssize(shortest_first);
  // A share too small for a piece would be nothing: two blocks are always enough for one.
  const int64_t least = rule.whole ? left : rule.align == 1 ? 0 : std::min(left, 2 * rule.align);
  for (const size_t i : shortest_first) {
    chunks[i] = piece(i, std::min(left, std::max((left + sharers - 1) / sharers, least)));
    left -= chunks[i];
    --sharers;
  }
  const auto grow = [&](size_t i) {
    const int64_t more = piece(i, chunks[i] + left) - chunks[i];
    chunks[i] += more;
    left -= more;
  };
  grow(0);
  for (const size_t i : shortest_first) grow(i);
  return chunks;
}

}  // namespace fretsaw
