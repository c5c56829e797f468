// Byte-pair merging of one word with a priority queue: O(n log n) in its symbols.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace fretsaw {

// Pair of ids -> rank and id of the merge, a flat hash table.
class MergeTable {
 public:
  struct Merge {
    uint32_t rank;
    int32_t id;
  };

  void Reserve(size_t merges);
  void Set(int32_t left, int32_t right, Merge merge);  // the last one wins
  const Merge* Find(int32_t left, int32_t right) const;

 private:
  struct Slot {
    uint64_t key = kEmpty;
    Merge merge{};
  };
  static constexpr uint64_t kEmpty = UINT64_MAX;  // ids are below 2^24

  size_t Home(uint64_t key) const { return (key * 0x9E3779B97F4A7C15u) >> shift_; }

  std::vector<Slot> slots_ = std::vector<Slot>(2);
  int shift_ = 63;
};

// Replaces `ids` by the result of all merges, lowest rank first, leftmost first among equals.
void MergeAll(const MergeTable& merges, std::vector<int32_t>& ids);

}  // namespace fretsaw
