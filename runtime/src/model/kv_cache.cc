#include "model/kv_cache.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

namespace fretsaw {
namespace {

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

std::byte* ReservePages(uint64_t bytes) {
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return nullptr;
  // Attention walks pages of many rows: large TLB entries help where the pool is large.
  constexpr uint64_t kHugePage = uint64_t{2} << 20;
  if (bytes >= 16 * kHugePage) madvise(memory, bytes, MADV_HUGEPAGE);
  return static_cast<std::byte*>(memory);
}

}  // namespace

KvCache::KvCache(const KvInfo& kv, int64_t tokens, int64_t sequences)
    : kv_(kv),
      policy_(MakeCachePolicy(kv)),
      tokens_(tokens),
      sequences_(sequences),
      pages_per_row_(MostColumns(*policy_, kv.page_tokens, tokens)),
      pages_(0) {}

Result<KvCache> KvCache::Create(const KvInfo& kv, int64_t tokens, int64_t sequences) {
  if (tokens < 1 || sequences < 1) {
    return Error{Status::kUsage, "a KV cache needs room for at least one token of one sequence"};
  }
  int64_t pages = 0;
  const int64_t columns = MostColumns(*MakeCachePolicy(kv), kv.page_tokens, tokens);
  const bool overflow = __builtin_mul_overflow(columns, kv.layers * kv.kv_heads, &pages) ||
                        __builtin_mul_overflow(pages, sequences, &pages);
  return CreateWithPages(kv, tokens, sequences, overflow ? INT64_MAX : pages);
}

Result<KvCache> KvCache::CreateWithPages(const KvInfo& kv, int64_t tokens, int64_t sequences,
                                         int64_t pages) {
  if (tokens < 1 || sequences < 1 || pages < 1) {
    return Error{Status::kUsage, "a KV cache needs room for at least one token of one sequence"};
  }
  KvCache cache(kv, tokens, sequences);
  int64_t bytes = 0;
  const auto too_large = [&] {
    return Error{Status::kOutOfMemory, "no memory for a KV cache of " + std::to_string(tokens) +
                                           " tokens for " + std::to_string(sequences) +
                                           " sequence(s); choose a smaller context"};
  };
  if (pages > INT32_MAX || __builtin_mul_overflow(pages, kv.PageBytes(), &bytes)) {
    return too_large();
  }
  cache.pages_ = pages;
  cache.positions_ = reinterpret_cast<int32_t*>(ReservePages(cache.position_bytes()));
  if (cache.positions_ == nullptr) return too_large();
  for (const PlaneInfo& plane : kv.planes) {
    std::byte* memory = ReservePages(static_cast<uint64_t>(pages * plane.PageBytes()));
    if (memory == nullptr) return too_large();
    cache.planes_.push_back(memory);
  }
  cache.references_.resize(static_cast<size_t>(pages), 0);
  cache.held_.resize(static_cast<size_t>(pages), 0);
  cache.free_.resize(static_cast<size_t>(pages));
  for (int64_t i = 0; i < pages; ++i) {
    cache.free_[static_cast<size_t>(i)] = static_cast<int32_t>(pages - 1 - i);
  }
  return cache;
}

KvCache::KvCache(KvCache&& other) noexcept
    : kv_(other.kv_),
      policy_(std::move(other.policy_)),
      tokens_(other.tokens_),
      sequences_(other.sequences_),
      pages_per_row_(other.pages_per_row_),
      pages_(other.pages_),
      used_(other.used_),
      planes_(std::exchange(other.planes_, {})),
      positions_(std::exchange(other.positions_, nullptr)),
      free_(std::move(other.free_)),
      references_(std::move(other.references_)),
      held_(std::move(other.held_)) {}

KvCache::~KvCache() {
  for (size_t i = 0; i < planes_.size(); ++i) {
    munmap(planes_[i], static_cast<size_t>(pages_ * kv_.planes[i].PageBytes()));
  }
  if (positions_ != nullptr) munmap(positions_, position_bytes());
}

int64_t KvCache::ColumnsFor(int64_t slots) const { return CeilDiv(slots, kv_.page_tokens); }

int32_t KvCache::Take() {
  const int32_t page = free_.back();
  free_.pop_back();
  references_[static_cast<size_t>(page)] = 1;
  ++used_;
  return page;
}

int32_t KvCache::TakeFilled() {
  const int32_t page = Take();
  for (size_t i = 0; i < planes_.size(); ++i) FillPage(i, page);
  return page;
}

void KvCache::Refer(int32_t page) {
  if (references_[static_cast<size_t>(page)]++ == 0) ++used_;
}

void KvCache::Unrefer(int32_t page) {
  const auto i = static_cast<size_t>(page);
  if (--references_[i] > 0) return;
  --used_;
  if (held_[i] == 0) free_.push_back(page);
}

void KvCache::Hold(int32_t page) { held_[static_cast<size_t>(page)] = 1; }

void KvCache::Drop(int32_t page) {
  const auto i = static_cast<size_t>(page);
  held_[i] = 0;
  if (references_[i] == 0) free_.push_back(page);
}

std::byte* KvCache::PageOf(size_t plane, int32_t page) const {
  return static_cast<std::byte*>(planes_[plane]) + page * kv_.planes[plane].PageBytes();
}

void KvCache::FillPage(size_t plane, int32_t page) {
  const std::vector<std::byte>& fill = kv_.planes[plane].fill;
  if (fill.empty()) return;
  const auto bytes = static_cast<size_t>(kv_.planes[plane].PageBytes());
  std::byte* to = PageOf(plane, page);
  std::memcpy(to, fill.data(), fill.size());
  for (size_t done = fill.size(); done < bytes; done *= 2) {  // twice as much each time
    std::memcpy(to + done, to, std::min(done, bytes - done));
  }
}

void KvCache::CopyPage(int32_t from, int32_t to) {
  for (size_t i = 0; i < planes_.size(); ++i) {
    if (kv_.planes[i].copied) {
      std::memcpy(PageOf(i, to), PageOf(i, from), static_cast<size_t>(kv_.planes[i].PageBytes()));
    } else {
      FillPage(i, to);
    }
  }
  std::copy_n(positions_ + from * kv_.page_tokens, kv_.page_tokens,
              positions_ + to * kv_.page_tokens);
}

}  // namespace fretsaw
