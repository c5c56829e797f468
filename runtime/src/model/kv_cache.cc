#include "model/kv_cache.h"

#include <sys/mman.h>

#include <algorithm>
#include <utility>

namespace fretsaw {
namespace {

int64_t CeilDiv(int64_t a, int64_t b) { return (a + b - 1) / b; }

float* ReservePages(uint64_t bytes) {
  void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return nullptr;
  // Attention walks pages of many rows: large TLB entries help where the pool is large.
  constexpr uint64_t kHugePage = uint64_t{2} << 20;
  if (bytes >= 16 * kHugePage) madvise(memory, bytes, MADV_HUGEPAGE);
  return static_cast<float*>(memory);
}

}  // namespace

KvCache::KvCache(const KvInfo& kv, int64_t tokens, int64_t sequences)
    : kv_(kv),
      tokens_(tokens),
      sequences_(sequences),
      pages_per_row_(CeilDiv(tokens, kv.page_tokens)),
      pages_(0) {}

Result<KvCache> KvCache::Create(const KvInfo& kv, int64_t tokens, int64_t sequences) {
  if (tokens < 1 || sequences < 1) {
    return Error{Status::kUsage, "a KV cache needs room for at least one token of one sequence"};
  }
  KvCache cache(kv, tokens, sequences);
  int64_t pages = 0, bytes = 0;
  const bool overflow = __builtin_mul_overflow(cache.pages_per_row_, cache.rows(), &pages) ||
                        __builtin_mul_overflow(pages, sequences, &pages) ||
                        __builtin_mul_overflow(pages, kv.PagePairBytes(), &bytes);
  const auto too_large = [&] {
    return Error{Status::kOutOfMemory, "no memory for a KV cache of " + std::to_string(tokens) +
                                           " tokens for " + std::to_string(sequences) +
                                           " sequence(s); choose a smaller context"};
  };
  if (overflow || pages > INT32_MAX) return too_large();
  cache.pages_ = pages;
  const auto element = static_cast<uint64_t>(DTypeBytes(kv.dtype));
  const auto page_elements = static_cast<uint64_t>(pages) * static_cast<uint64_t>(kv.page_tokens);
  cache.k_pages_ = ReservePages(page_elements * static_cast<uint64_t>(kv.key_size) * element);
  cache.v_pages_ = ReservePages(page_elements * static_cast<uint64_t>(kv.value_size) * element);
  if (cache.k_pages_ == nullptr || cache.v_pages_ == nullptr) return too_large();
  cache.free_.resize(static_cast<size_t>(pages));
  for (int64_t i = 0; i < pages; ++i) {
    cache.free_[static_cast<size_t>(i)] = static_cast<int32_t>(pages - 1 - i);
  }
  return cache;
}

KvCache::KvCache(KvCache&& other) noexcept
    : kv_(other.kv_),
      tokens_(other.tokens_),
      sequences_(other.sequences_),
      pages_per_row_(other.pages_per_row_),
      pages_(other.pages_),
      k_pages_(std::exchange(other.k_pages_, nullptr)),
      v_pages_(std::exchange(other.v_pages_, nullptr)),
      free_(std::move(other.free_)) {}

KvCache::~KvCache() {
  const auto elements = static_cast<size_t>(pages_ * kv_.page_tokens * DTypeBytes(kv_.dtype));
  if (k_pages_ != nullptr) munmap(k_pages_, elements * static_cast<size_t>(kv_.key_size));
  if (v_pages_ != nullptr) munmap(v_pages_, elements * static_cast<size_t>(kv_.value_size));
}

Sequence::Sequence(KvCache* cache)
    : cache_(cache),
      lens_(static_cast<size_t>(cache->rows()), 0),
      counts_(static_cast<size_t>(cache->rows()), 0),
      table_(static_cast<size_t>(cache->rows() * cache->pages_per_row()), 0) {}

Sequence::~Sequence() { Reset(); }

std::span<const int32_t> Sequence::row(int64_t row) const {
  const auto start = static_cast<size_t>(row * cache_->pages_per_row());
  return std::span(table_).subspan(start, static_cast<size_t>(counts_[static_cast<size_t>(row)]));
}

VoidResult Sequence::Reserve(int64_t tokens) {
  if (tokens > room()) {
    return Error{Status::kPromptTooLong, std::to_string(length_ + tokens) +
                                             " tokens do not fit a context of " +
                                             std::to_string(cache_->tokens())};
  }
  const int64_t page_tokens = cache_->kv_.page_tokens;
  int64_t wanted = 0;
  for (size_t r = 0; r < lens_.size(); ++r) {
    wanted += std::max<int64_t>(0, CeilDiv(lens_[r] + tokens, page_tokens) - counts_[r]);
  }
  if (wanted > cache_->free_pages()) {
    return Error{Status::kOutOfMemory, "the KV cache has " + std::to_string(cache_->free_pages()) +
                                           " free pages, " + std::to_string(wanted) +
                                           " are needed"};
  }
  for (size_t r = 0; r < lens_.size(); ++r) {
    const int64_t needed = CeilDiv(lens_[r] + tokens, page_tokens);
    int32_t* row = table_.data() + r * static_cast<size_t>(cache_->pages_per_row());
    while (counts_[r] < needed) {
      row[counts_[r]++] = cache_->free_.back();
      cache_->free_.pop_back();
    }
    longest_row_ = std::max<int64_t>(longest_row_, counts_[r]);
  }
  return Ok{};
}

void Sequence::Commit(int64_t tokens) {
  length_ += tokens;
  for (int32_t& len : lens_) len += static_cast<int32_t>(tokens);
}

void Sequence::Reset() {
  // Last row and last page first, so that the stack hands them out in the same order again.
  for (size_t r = lens_.size(); r-- > 0;) {
    const int32_t* row = table_.data() + r * static_cast<size_t>(cache_->pages_per_row());
    while (counts_[r] > 0) cache_->free_.push_back(row[--counts_[r]]);
    lens_[r] = 0;
  }
  length_ = 0;
  longest_row_ = 0;
}

}  // namespace fretsaw
