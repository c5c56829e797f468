#include "tokenizer/bpe.h"

#include <algorithm>
#include <bit>

namespace fretsaw {
namespace {

struct Symbol {
  int32_t id;
  int32_t previous;
  int32_t next;
  bool gone;
};

struct Candidate {
  uint32_t rank;
  int32_t at;
  int32_t id;
  // std heaps keep the largest on top, so "less" means a later merge.
  bool operator<(const Candidate& o) const { return rank != o.rank ? rank > o.rank : at > o.at; }
};

}  // namespace

void MergeTable::Reserve(size_t merges) {
  const size_t size = std::bit_ceil(std::max<size_t>(merges * 2, 2));
  slots_.assign(size, {});
  shift_ = 64 - std::countr_zero(size);
}

void MergeTable::Set(int32_t left, int32_t right, Merge merge) {
  const uint64_t key = static_cast<uint64_t>(left) << 32 | static_cast<uint32_t>(right);
  size_t slot = Home(key);
  while (slots_[slot].key != kEmpty && slots_[slot].key != key)
    slot = (slot + 1) & (slots_.size() - 1);
  slots_[slot] = {key, merge};
}

const MergeTable::Merge* MergeTable::Find(int32_t left, int32_t right) const {
  const uint64_t key = static_cast<uint64_t>(left) << 32 | static_cast<uint32_t>(right);
  for (size_t slot = Home(key); slots_[slot].key != kEmpty;
       slot = (slot + 1) & (slots_.size() - 1)) {
    if (slots_[slot].key == key) return &slots_[slot].merge;
  }
  return nullptr;
}

void MergeAll(const MergeTable& merges, std::vector<int32_t>& ids) {
  const auto count = static_cast<int32_t>(ids.size());
  if (count < 2) return;
  std::vector<Symbol> symbols(ids.size());
  std::vector<Candidate> heap;
  for (int32_t i = 0; i < count; ++i) {
    const auto u = static_cast<size_t>(i);
    symbols[u] = {ids[u], i - 1, i + 1 < count ? i + 1 : -1, false};
    if (i + 1 == count) break;
    if (const auto* m = merges.Find(ids[u], ids[u + 1])) heap.push_back({m->rank, i, m->id});
  }
  std::make_heap(heap.begin(), heap.end());
  const auto push = [&](int32_t at) {
    const Symbol& left = symbols[static_cast<size_t>(at)];
    const auto* m = merges.Find(left.id, symbols[static_cast<size_t>(left.next)].id);
    if (m == nullptr) return;
    heap.push_back({m->rank, at, m->id});
    std::push_heap(heap.begin(), heap.end());
  };
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end());
    const Candidate top = heap.back();
    heap.pop_back();
    Symbol& left = symbols[static_cast<size_t>(top.at)];
    if (left.gone || left.next < 0) continue;
    Symbol& right = symbols[static_cast<size_t>(left.next)];
    // Stale unless the pair now there gives the same token. Its rank is not compared, as in the
    // original.
    const auto* m = merges.Find(left.id, right.id);
    if (m == nullptr || m->id != top.id) continue;
    left.id = top.id;
    left.next = right.next;
    right.gone = true;
    if (left.next >= 0) symbols[static_cast<size_t>(left.next)].previous = top.at;
    if (left.previous >= 0) push(left.previous);
    if (left.next >= 0) push(top.at);
  }
  ids.clear();
  for (int32_t i = 0; i >= 0; i = symbols[static_cast<size_t>(i)].next) {
    ids.push_back(symbols[static_cast<size_t>(i)].id);
  }
}

}  // namespace fretsaw
