// Finds pages of the KV cache that were filled from the same first tokens. One entry is one page
// of every row, under the entry of the tokens before it, so a path from the root spells a prefix.
//
// The pages of an entry stay in the cache after their sequences have ended, until Reclaim. An entry
// that a sequence uses is never reclaimed, nor is one before it: who uses an entry uses its parents
// too (Publish makes sure of that), so the unused entries can always go, leaves first.
#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "model/kv_cache.h"

namespace fretsaw {

// How far along its tokens a sequence is in the index. A sequence starts with the default.
struct PrefixCursor {
  int32_t entry = -1;  // of the last page, -1: the root
  int64_t column = 0;  // pages behind it
};

// Not thread-safe.
class PrefixIndex {
 public:
  // The cache must outlive the index and must not move.
  explicit PrefixIndex(KvCache* cache) : cache_(cache) {}
  PrefixIndex(const PrefixIndex&) = delete;
  PrefixIndex& operator=(const PrefixIndex&) = delete;
  ~PrefixIndex();

  // Appends to the sequence the pages that continue it along `tokens`, counted from its start, as
  // long as they end at or before `most` tokens. Does nothing unless the sequence is at the cursor.
  // Returns the tokens appended.
  int64_t Extend(std::span<const int32_t> tokens, int64_t most, Sequence* sequence,
                 PrefixCursor* cursor);
  // Enters the full pages of the sequence after the cursor, which hold `tokens`. Where the index
  // has a page with the same tokens already, the sequence takes that one and frees its own.
  void Publish(std::span<const int32_t> tokens, Sequence* sequence, PrefixCursor* cursor);

  // Gives up entries that no sequence uses, the longest unused first, until the cache has `pages`
  // free pages or none is left.
  void Reclaim(int64_t pages);

  int64_t entries() const { return static_cast<int64_t>(found_.size()); }

 private:
  struct Key {
    int32_t parent;
    std::vector<int32_t> tokens;
    bool operator==(const Key&) const = default;
  };
  struct Hash {
    size_t operator()(const Key& key) const;
  };
  struct Entry {
    const Key* key = nullptr;  // in found_; nullptr: a free slot
    std::vector<int32_t> pages;
    int32_t children = 0;
    int64_t used = 0;  // on the clock
  };

  Key KeyAt(std::span<const int32_t> tokens, const PrefixCursor& cursor) const;
  bool Removable(const Entry& entry) const;
  int32_t Remove(int32_t id);  // returns its parent

  KvCache* cache_;
  std::unordered_map<Key, int32_t, Hash> found_;
  std::vector<Entry> entries_;
  std::vector<int32_t> free_;
  int64_t clock_ = 0;
};

}  // namespace fretsaw
