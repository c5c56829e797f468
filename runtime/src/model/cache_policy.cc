#include "model/cache_policy.h"

#include <algorithm>
#include <cassert>
#include <limits>

namespace fretsaw {
namespace {

class Full final : public CachePolicy {
 public:
  int64_t bound(int64_t tokens) const override { return tokens; }
  int64_t step_end(int64_t) const override { return std::numeric_limits<int64_t>::max(); }
  Columns Evicted(int64_t, int64_t, int64_t) const override { return {}; }
  bool keeps_prefix() const override { return true; }
  bool can_roll_back(int64_t, int64_t) const override { return true; }
};

// After n tokens a row holds those below `head`, which is `sinks` rounded up to whole pages, and
// those from Tail(n) on, which is n - window rounded down. Both are multiples of a page: slots keep
// their place within a page, and nothing is copied.
class Window final : public CachePolicy {
 public:
  Window(const WindowPolicy& info, int64_t page)
      : page_(page), head_((info.sinks + page - 1) / page * page), window_(info.window) {}

  int64_t bound(int64_t tokens) const override { return std::min(tokens, head_ + window_ + page_); }
  // Where the tail moves on by a page.
  int64_t step_end(int64_t tokens) const override { return Tail(tokens) + window_ + page_; }
  Columns Evicted(int64_t, int64_t slots, int64_t tokens) const override {
    const int64_t dropped = slots - (head_ + tokens - Tail(tokens));
    assert(dropped % page_ == 0);
    return dropped > 0 ? Columns{head_ / page_, dropped / page_} : Columns{};
  }
  bool keeps_prefix() const override { return false; }
  bool can_roll_back(int64_t from, int64_t to) const override { return Tail(from) == Tail(to); }

 private:
  // The first token behind the head that is held after so many.
  int64_t Tail(int64_t tokens) const { return std::max(head_, (tokens - window_) / page_ * page_); }

  int64_t page_, head_, window_;  // tokens
};

}  // namespace

std::unique_ptr<const CachePolicy> MakeCachePolicy(const KvInfo& kv) {
  if (const auto* window = std::get_if<WindowPolicy>(&kv.policy)) {
    return std::make_unique<Window>(*window, kv.page_tokens);
  }
  return std::make_unique<Full>();
}

int64_t MostColumns(const CachePolicy& policy, int64_t page_tokens, int64_t tokens) {
  const int64_t slots = policy.bound(tokens);
  return slots / page_tokens + (slots % page_tokens == 0 ? 0 : 1);
}

uint64_t SequenceBytes(const KvInfo& kv, int64_t tokens) {
  const int64_t columns = MostColumns(*MakeCachePolicy(kv), kv.page_tokens, tokens);
  return static_cast<uint64_t>(columns * kv.layers * kv.kv_heads * kv.PageBytes());
}

}  // namespace fretsaw
