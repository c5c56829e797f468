// Sequence, declared beside the cache whose pages it holds.
#include <algorithm>
#include <cassert>
#include <numeric>
#include <string>
#include <utility>

#include "model/kv_cache.h"

namespace fretsaw {

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

bool Sequence::WouldWriteShared(size_t row) const {
  const int64_t page_tokens = cache_->kv_.page_tokens;
  if (lens_[row] % page_tokens == 0) return false;
  const auto start = row * static_cast<size_t>(cache_->pages_per_row());
  const auto page =
      static_cast<size_t>(table_[start + static_cast<size_t>(lens_[row] / page_tokens)]);
  return cache_->references_[page] > 1 || cache_->held_[page] != 0;
}

int64_t Sequence::Wanted(int64_t tokens) const {
  int64_t wanted = 0;
  for (size_t r = 0; r < lens_.size() && tokens > 0; ++r) {
    wanted += std::max<int64_t>(0, cache_->ColumnsFor(lens_[r] + tokens) - counts_[r]);
    wanted += WouldWriteShared(r) ? 1 : 0;
  }
  return wanted;
}

VoidResult Sequence::Reserve(int64_t tokens) {
  if (tokens > room()) {
    return Error{Status::kPromptTooLong, std::to_string(num_computed_tokens_ + tokens) +
                                             " tokens do not fit a context of " +
                                             std::to_string(cache_->tokens())};
  }
  if (tokens > step_room()) {
    return Error{Status::kUsage, std::to_string(tokens) + " tokens in one step, at most " +
                                     std::to_string(step_room()) + " before the cache evicts some"};
  }
  const int64_t wanted = Wanted(tokens);
  if (wanted > cache_->free_pages()) {
    return Error{Status::kOutOfMemory, "the KV cache has " + std::to_string(cache_->free_pages()) +
                                           " free pages, " + std::to_string(wanted) +
                                           " are needed"};
  }
  if (wanted == 0) return Ok{};
  for (size_t r = 0; r < lens_.size(); ++r) {
    int32_t* row = RowData(r);
    if (WouldWriteShared(r)) {
      int32_t& last = row[lens_[r] / cache_->kv_.page_tokens];
      const int32_t own = cache_->Take();
      cache_->CopyPage(last, own);
      cache_->Unrefer(std::exchange(last, own));
    }
    const int64_t needed = cache_->ColumnsFor(lens_[r] + tokens);
    while (counts_[r] < needed) row[counts_[r]++] = cache_->TakeFilled();
    longest_row_ = std::max<int64_t>(longest_row_, counts_[r]);
  }
  return Ok{};
}

void Sequence::WritePositions(size_t row, int64_t tokens) {
  if (tokens == 0) return;
  assert(!WouldWriteShared(row));
  const int64_t page_tokens = cache_->kv_.page_tokens;
  assert(cache_->ColumnsFor(lens_[row] + tokens) <= counts_[row]);
  const int32_t* page = RowData(row) + lens_[row] / page_tokens;
  int64_t slot = lens_[row] % page_tokens;
  auto position = static_cast<int32_t>(num_computed_tokens_);
  while (tokens > 0) {
    const int64_t run = std::min(tokens, page_tokens - slot);
    int32_t* to = cache_->positions_ + *page++ * page_tokens + slot;
    std::iota(to, to + run, position);
    position += static_cast<int32_t>(run);
    tokens -= run;
    slot = 0;
  }
}

void Sequence::Commit(int64_t tokens) {
  for (size_t r = 0; r < lens_.size(); ++r) WritePositions(r, tokens);
  const int64_t end = cache_->policy().step_end(num_computed_tokens_);
  Lengthen(tokens);
  if (num_computed_tokens_ == end) Evict();
}

void Sequence::Lengthen(int64_t tokens) {
  num_computed_tokens_ += tokens;
  for (int32_t& len : lens_) len += static_cast<int32_t>(tokens);
}

void Sequence::Evict() {
  const CachePolicy& policy = cache_->policy();
  for (size_t r = 0; r < lens_.size(); ++r) {
    const auto row = static_cast<int64_t>(r);
    Evict(r, policy.Evicted(row, lens_[r], num_computed_tokens_));
  }
  longest_row_ = *std::max_element(counts_.begin(), counts_.end());
}

void Sequence::Evict(size_t row, const Columns& columns) {
  int32_t* first = RowData(row) + columns.first;
  int32_t* end = RowData(row) + counts_[row];
  for (int64_t i = 0; i < columns.count; ++i) cache_->Unrefer(first[i]);
  std::copy(first + columns.count, end, first);
  counts_[row] -= static_cast<int32_t>(columns.count);
  lens_[row] -= static_cast<int32_t>(columns.count * cache_->kv_.page_tokens);
}

void Sequence::Reset() {
  // Last row and last page first, so that the stack hands them out in the same order again.
  for (size_t r = lens_.size(); r-- > 0;) {
    const int32_t* row = RowData(r);
    while (counts_[r] > 0) cache_->Unrefer(row[--counts_[r]]);
    lens_[r] = 0;
  }
  num_computed_tokens_ = 0;
  longest_row_ = 0;
}

void Sequence::ForkFrom(const Sequence& other) {
  if (this == &other) return;
  Reset();
  num_computed_tokens_ = other.num_computed_tokens_;
  lens_ = other.lens_;
  for (size_t r = 0; r < lens_.size(); ++r) {
    // Pages that the other one has reserved ahead stay its own.
    const int64_t count = cache_->ColumnsFor(lens_[r]);
    const auto from = other.row(static_cast<int64_t>(r)).first(static_cast<size_t>(count));
    std::copy(from.begin(), from.end(), RowData(r));
    for (const int32_t page : from) cache_->Refer(page);
    counts_[r] = static_cast<int32_t>(count);
    longest_row_ = std::max(longest_row_, count);
  }
}

VoidResult Sequence::Rollback(int64_t tokens) {
  if (tokens < 0 || tokens > num_computed_tokens_) {
    return Error{Status::kUsage, "cannot forget " + std::to_string(tokens) + " tokens of " +
                                     std::to_string(num_computed_tokens_)};
  }
  const int64_t left = num_computed_tokens_ - tokens;
  if (!cache_->policy().can_roll_back(num_computed_tokens_, left)) {
    return Error{Status::kUsage, "cannot forget " + std::to_string(tokens) + " tokens of " +
                                     std::to_string(num_computed_tokens_) +
                                     ": the cache has evicted some that were there before them"};
  }
  num_computed_tokens_ = left;
  longest_row_ = 0;
  for (size_t r = 0; r < lens_.size(); ++r) {
    lens_[r] -= static_cast<int32_t>(tokens);
    const int64_t keep = cache_->ColumnsFor(lens_[r]);
    while (counts_[r] > keep) cache_->Unrefer(RowData(r)[--counts_[r]]);
    longest_row_ = std::max<int64_t>(longest_row_, counts_[r]);
  }
  return Ok{};
}

void Sequence::AppendColumn(std::span<const int32_t> pages) {
  assert(cache_->policy().keeps_prefix());
  for (size_t r = 0; r < lens_.size(); ++r) {
    cache_->Refer(pages[r]);
    RowData(r)[counts_[r]++] = pages[r];
    longest_row_ = std::max<int64_t>(longest_row_, counts_[r]);
  }
  Lengthen(cache_->kv_.page_tokens);
}

void Sequence::ReplaceColumn(int64_t column, std::span<const int32_t> pages) {
  for (size_t r = 0; r < lens_.size(); ++r) {
    cache_->Refer(pages[r]);
    cache_->Unrefer(std::exchange(RowData(r)[column], pages[r]));
  }
}

int64_t Sequence::pages() const {
  int64_t sum = 0;
  for (const int32_t count : counts_) sum += count;
  return sum;
}

}  // namespace fretsaw
