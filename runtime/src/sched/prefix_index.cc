#include "sched/prefix_index.h"

#include <algorithm>
#include <queue>
#include <utility>

namespace fretsaw {

size_t PrefixIndex::Hash::operator()(const Key& key) const {
  uint64_t hash = 0xcbf29ce484222325u ^ static_cast<uint32_t>(key.parent);  // FNV-1a over words
  for (const int32_t token : key.tokens) {
    hash = (hash ^ static_cast<uint32_t>(token)) * 0x100000001b3u;
  }
  return static_cast<size_t>(hash ^ (hash >> 29));
}

PrefixIndex::~PrefixIndex() {
  for (const Entry& entry : entries_) {
    if (entry.key == nullptr) continue;
    for (const int32_t page : entry.pages) cache_->Drop(page);
  }
}

PrefixIndex::Key PrefixIndex::KeyAt(std::span<const int32_t> tokens,
                                    const PrefixCursor& cursor) const {
  const int64_t page = cache_->kv().page_tokens;
  const auto of_page =
      tokens.subspan(static_cast<size_t>(cursor.column * page), static_cast<size_t>(page));
  return {cursor.entry, {of_page.begin(), of_page.end()}};
}

int64_t PrefixIndex::Extend(std::span<const int32_t> tokens, int64_t most, Sequence* sequence,
                            PrefixCursor* cursor) {
  const int64_t page = cache_->kv().page_tokens;
  if (sequence->num_computed_tokens() != cursor->column * page) return 0;
  const int64_t end = std::min<int64_t>(most, std::ssize(tokens));
  int64_t appended = 0;
  while ((cursor->column + 1) * page <= end) {
    const auto found = found_.find(KeyAt(tokens, *cursor));
    if (found == found_.end()) break;
    Entry& entry = entries_[static_cast<size_t>(found->second)];
    entry.used = ++clock_;
    sequence->AppendColumn(entry.pages);
    *cursor = {found->second, cursor->column + 1};
    appended += page;
  }
  return appended;
}

void PrefixIndex::Publish(std::span<const int32_t> tokens, Sequence* sequence,
                          PrefixCursor* cursor) {
  const int64_t page = cache_->kv().page_tokens;
  const int64_t end = std::min<int64_t>(sequence->num_computed_tokens(), std::ssize(tokens));
  while ((cursor->column + 1) * page <= end) {
    auto [found, fresh] = found_.try_emplace(KeyAt(tokens, *cursor), -1);
    if (fresh) {
      if (free_.empty()) {
        free_.push_back(static_cast<int32_t>(entries_.size()));
        entries_.emplace_back();
      }
      found->second = free_.back();
      free_.pop_back();
      Entry& entry = entries_[static_cast<size_t>(found->second)];
      entry = {&found->first, {}, 0, 0};
      for (int64_t row = 0; row < cache_->rows(); ++row) {
        entry.pages.push_back(sequence->row(row)[static_cast<size_t>(cursor->column)]);
        cache_->Hold(entry.pages.back());
      }
      if (cursor->entry >= 0) ++entries_[static_cast<size_t>(cursor->entry)].children;
    } else {
      sequence->ReplaceColumn(cursor->column, entries_[static_cast<size_t>(found->second)].pages);
    }
    entries_[static_cast<size_t>(found->second)].used = ++clock_;
    *cursor = {found->second, cursor->column + 1};
  }
}

bool PrefixIndex::Removable(const Entry& entry) const {
  // Sequences take and leave the pages of an entry together, so the first one speaks for all.
  return entry.key != nullptr && entry.children == 0 &&
         cache_->references(entry.pages.front()) == 0;
}

int32_t PrefixIndex::Remove(int32_t id) {
  Entry& entry = entries_[static_cast<size_t>(id)];
  for (const int32_t page : entry.pages) cache_->Drop(page);
  const int32_t parent = entry.key->parent;
  if (parent >= 0) --entries_[static_cast<size_t>(parent)].children;
  found_.erase(found_.find(*entry.key));
  entry = {};
  free_.push_back(id);
  return parent;
}

void PrefixIndex::Reclaim(int64_t pages) {
  if (cache_->free_pages() >= pages) return;
  using Candidate = std::pair<int64_t, int32_t>;  // used, id
  std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> oldest;
  for (int32_t id = 0; id < std::ssize(entries_); ++id) {
    const Entry& entry = entries_[static_cast<size_t>(id)];
    if (Removable(entry)) oldest.push({entry.used, id});
  }
  while (cache_->free_pages() < pages && !oldest.empty()) {
    const int32_t parent = Remove(oldest.top().second);
    oldest.pop();
    if (parent < 0) continue;
    const Entry& entry = entries_[static_cast<size_t>(parent)];
    if (Removable(entry)) oldest.push({entry.used, parent});
  }
}

}  // namespace fretsaw
