// The KV cache: pages per (layer, kv head), handed to sequences as they grow.
//
// A page holds `page_tokens` tokens of one layer and one kv head: an array in each of the planes
// that the manifest declares, keys and values among them. Every (layer, sequence, head) has its own
// length and its own row of pages, so that a policy may keep different tokens in each; which they
// are after a step is up to the policy (model/cache_policy.h).
//
// A page may be in several sequences (fork, shared prefix) and is written only by a sequence that
// has it alone: before a token goes into a page that others see too, the sequence copies the page.
//
// A page that a row takes anew holds a plane's fill where the manifest gives one, and anything
// where it does not. A fork shares pages, and so all planes; a copy has the same contents, or the
// fill where the plane says so. Slots at and past a row's length, as after a rollback, hold
// anything: programs do not read them, and write all planes of a slot that they append.
//
// Beside every slot of a page stands the rotary position of its token. While no token is taken out
// of a row, slot i of it has position i; what a policy leaves in a row keeps its own. They belong
// to the page: who shares or copies it has them too.
#pragma once

#include <cassert>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "artifact/manifest.h"
#include "base/result.h"
#include "model/cache_policy.h"

namespace fretsaw {

class Sequence;

class KvCache {
 public:
  // Room for `sequences` sequences of up to `tokens` tokens each. The memory is reserved now and
  // becomes resident as pages are first written. Errors: kOutOfMemory.
  static Result<KvCache> Create(const KvInfo& kv, int64_t tokens, int64_t sequences = 1);
  // The same with `pages` page pairs for all sequences together, however few that is.
  static Result<KvCache> CreateWithPages(const KvInfo& kv, int64_t tokens, int64_t sequences,
                                         int64_t pages);

  KvCache(KvCache&& other) noexcept;
  KvCache& operator=(KvCache&&) = delete;
  KvCache(const KvCache&) = delete;
  ~KvCache();

  const KvInfo& kv() const { return kv_; }
  const CachePolicy& policy() const { return *policy_; }
  int64_t rows() const { return kv_.layers * kv_.kv_heads; }
  int64_t pages_per_row() const { return pages_per_row_; }
  int64_t sequences() const { return sequences_; }
  int64_t tokens() const { return tokens_; }
  int64_t pages() const { return pages_; }
  int64_t free_pages() const { return static_cast<int64_t>(free_.size()); }
  // Pages that some sequence holds; the rest is free or only held.
  int64_t used_pages() const { return used_; }
  // Sequences that hold a page.
  int32_t references(int32_t page) const { return references_[static_cast<size_t>(page)]; }
  // Pages of a row that holds that many slots.
  int64_t ColumnsFor(int64_t slots) const;
  // Most pages of all rows together that a sequence of that many tokens comes to have.
  int64_t PagesFor(int64_t tokens) const {
    return MostColumns(*policy_, kv_.page_tokens, tokens) * rows();
  }

  // Keeps a page of a sequence alive, with its contents, until Drop; at most once a page.
  void Hold(int32_t page);
  void Drop(int32_t page);
  // Of all planes, which is what limits on the cache count. Positions come on top: 4 bytes a slot,
  // where keys and values of size 64 take 512 (f32), 256 (f16) or 136 (int8).
  uint64_t bytes() const { return static_cast<uint64_t>(pages_ * kv_.PageBytes()); }
  uint64_t position_bytes() const {
    return static_cast<uint64_t>(pages_ * kv_.page_tokens) * sizeof(int32_t);
  }
  // In the manifest's order, each [pages, shape...].
  std::span<void* const> planes() const { return planes_; }
  // [pages, page_tokens]; slots that no sequence has filled hold anything.
  int32_t* positions() const { return positions_; }

 private:
  friend class Sequence;
  KvCache(const KvInfo& kv, int64_t tokens, int64_t sequences);

  int32_t Take();              // a free page, with one reference; it holds anything
  int32_t TakeFilled();        // the same; it holds the planes' fills
  void Refer(int32_t page);    // one reference more
  void Unrefer(int32_t page);  // one less; the last one frees a page that nobody holds
  void CopyPage(int32_t from, int32_t to);
  void FillPage(size_t plane, int32_t page);
  std::byte* PageOf(size_t plane, int32_t page) const;

  KvInfo kv_;
  std::unique_ptr<const CachePolicy> policy_;
  int64_t tokens_, sequences_, pages_per_row_, pages_;
  int64_t used_ = 0;
  std::vector<void*> planes_;
  int32_t* positions_ = nullptr;
  std::vector<int32_t> free_;        // a stack; the lowest numbers come out first
  std::vector<int32_t> references_;  // [pages]
  std::vector<uint8_t> held_;        // [pages]
};

// One sequence's place in a cache. Gives its pages back when it ends. The cache must outlive it and
// must not move while it lives. Not thread-safe.
class Sequence {
 public:
  explicit Sequence(KvCache* cache);
  Sequence(const Sequence&) = delete;
  Sequence& operator=(const Sequence&) = delete;
  ~Sequence();

  // Tokens seen so far; also the rotary position of the next token. Rows may hold fewer (lens).
  int64_t num_computed_tokens() const { return num_computed_tokens_; }
  // Tokens that still fit.
  int64_t room() const { return cache_->tokens() - num_computed_tokens_; }
  // Most tokens that may be reserved at once, before the policy has its turn.
  int64_t step_room() const {
    return cache_->policy().step_end(num_computed_tokens_) - num_computed_tokens_;
  }

  // Free pages that Reserve(tokens) would take.
  int64_t Wanted(int64_t tokens) const;
  // Makes sure that every row has pages of its own for `tokens` more tokens; the last page is
  // copied if it is partly filled and somebody else's too. No memory is allocated.
  // Errors: kPromptTooLong (over the capacity), kUsage (over step_room), kOutOfMemory (no free
  // pages; nothing changed).
  VoidResult Reserve(int64_t tokens);
  // Records that `tokens` tokens were appended by a step, and their positions, and drops what the
  // policy no longer keeps. They must have been reserved, and no page shared since.
  void Commit(int64_t tokens);
  // Forgets everything and gives all pages back.
  void Reset();

  // Takes over what `other`, of the same cache, holds; both go on from there. Pages are shared.
  // Forgets what this sequence had.
  void ForkFrom(const Sequence& other);
  // Forgets the last `tokens` tokens. Errors: kUsage (there are fewer, or the policy has dropped
  // what the ones before them see; nothing changed).
  VoidResult Rollback(int64_t tokens);

  // Appends a page full of tokens that is in the cache already, one page number a row; its
  // positions stay as they are. The length must be a multiple of the page size, without pages
  // reserved ahead, and the policy keep prefixes.
  void AppendColumn(std::span<const int32_t> pages);
  // Takes these pages for full page `column` of every row in place of its own of the same contents.
  void ReplaceColumn(int64_t column, std::span<const int32_t> pages);

  // Slots held, [layers * kv_heads].
  std::span<const int32_t> lens() const { return lens_; }
  // Pages of row `layer * kv_heads + head`, in order.
  std::span<const int32_t> row(int64_t row) const;
  // Rotary position of the token in slot `slot` of the row, below lens()[row].
  int32_t position(int64_t row, int64_t slot) const {
    assert(row >= 0 && row < cache_->rows());
    assert(slot >= 0 && slot < lens_[static_cast<size_t>(row)]);
    const int64_t page_tokens = cache_->kv().page_tokens;
    const int32_t page = this->row(row)[static_cast<size_t>(slot / page_tokens)];
    return cache_->positions()[page * page_tokens + slot % page_tokens];
  }
  int64_t longest_row() const { return longest_row_; }  // pages
  int64_t pages() const;                                // of all rows together

 private:
  int32_t* RowData(size_t row) {
    return table_.data() + row * static_cast<size_t>(cache_->pages_per_row());
  }
  // Writes the positions of the next `tokens` tokens beside their slots.
  void WritePositions(size_t row, int64_t tokens);
  // Lengthens all rows.
  void Lengthen(int64_t tokens);
  // Drops what the policy no longer keeps.
  void Evict();
  void Evict(size_t row, const Columns& columns);
  // Whether the next token of the row would be written into a page that is not ours alone.
  bool WouldWriteShared(size_t row) const;

  KvCache* cache_;
  int64_t num_computed_tokens_ = 0;
  int64_t longest_row_ = 0;
  std::vector<int32_t> lens_;    // [rows]
  std::vector<int32_t> counts_;  // [rows], pages held
  std::vector<int32_t> table_;   // [rows, pages_per_row]
};

}  // namespace fretsaw
