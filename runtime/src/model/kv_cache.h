// The KV cache: pages per (layer, kv head), handed to sequences as they grow.
//
// A page holds the keys [key_size, page_tokens] or the values [page_tokens, value_size] of one
// layer and one kv head; page n of the two pools belongs together. Every (layer, sequence, head)
// has its own length and its own row of pages, so that a policy may keep different tokens in each.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "artifact/manifest.h"
#include "base/result.h"

namespace fretsaw {

class Sequence;

class KvCache {
 public:
  // Room for `sequences` sequences of up to `tokens` tokens each. The memory is reserved now and
  // becomes resident as pages are first written. Errors: kOutOfMemory.
  static Result<KvCache> Create(const KvInfo& kv, int64_t tokens, int64_t sequences = 1);

  KvCache(KvCache&& other) noexcept;
  KvCache& operator=(KvCache&&) = delete;
  KvCache(const KvCache&) = delete;
  ~KvCache();

  const KvInfo& kv() const { return kv_; }
  int64_t rows() const { return kv_.layers * kv_.kv_heads; }
  int64_t pages_per_row() const { return pages_per_row_; }
  int64_t sequences() const { return sequences_; }
  int64_t tokens() const { return tokens_; }
  int64_t pages() const { return pages_; }
  int64_t free_pages() const { return static_cast<int64_t>(free_.size()); }
  uint64_t bytes() const { return static_cast<uint64_t>(pages_ * kv_.PagePairBytes()); }
  float* k_pages() const { return k_pages_; }
  float* v_pages() const { return v_pages_; }

 private:
  friend class Sequence;
  KvCache(const KvInfo& kv, int64_t tokens, int64_t sequences);

  KvInfo kv_;
  int64_t tokens_, sequences_, pages_per_row_, pages_;
  float* k_pages_ = nullptr;
  float* v_pages_ = nullptr;
  std::vector<int32_t> free_;  // a stack; the lowest numbers come out first
};

// One sequence's place in a cache. Gives its pages back when it ends. The cache must outlive it and
// must not move while it lives. Not thread-safe.
class Sequence {
 public:
  explicit Sequence(KvCache* cache);
  Sequence(const Sequence&) = delete;
  Sequence& operator=(const Sequence&) = delete;
  ~Sequence();

  // Tokens appended so far; also the rotary position of the next token.
  int64_t length() const { return length_; }
  // Tokens that still fit.
  int64_t room() const { return cache_->tokens() - length_; }

  // Makes sure that every row has pages for `tokens` more tokens. No memory is allocated.
  // Errors: kPromptTooLong (over the capacity), kOutOfMemory (no free pages; nothing changed).
  VoidResult Reserve(int64_t tokens);
  // Records that `tokens` tokens were appended by a step.
  void Commit(int64_t tokens);
  // Forgets everything and gives all pages back.
  void Reset();

  std::span<const int32_t> lens() const { return lens_; }  // [layers * kv_heads]
  // Pages of row `layer * kv_heads + head`, in order.
  std::span<const int32_t> row(int64_t row) const;
  int64_t longest_row() const { return longest_row_; }  // pages

 private:
  KvCache* cache_;
  int64_t length_ = 0;
  int64_t longest_row_ = 0;
  std::vector<int32_t> lens_;    // [rows]
  std::vector<int32_t> counts_;  // [rows], pages held
  std::vector<int32_t> table_;   // [rows, pages_per_row]
};

}  // namespace fretsaw
