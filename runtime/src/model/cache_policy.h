// What the rows of a KV cache hold of the tokens that their sequence has seen.
//
// Slots held and tokens seen are different numbers: a policy may drop pages of a row after a step,
// and the slots that stay move up. Keys were rotated when they were stored, so nothing is computed
// again; the positions beside the slots move with their pages. A row is a function of the tokens
// seen alone, whatever steps they came in: a step must not run past the next point at which
// something is dropped (step_end), or its later tokens would read more than in another schedule.
#pragma once

#include <cstdint>
#include <memory>

#include "artifact/kv_info.h"

namespace fretsaw {

// Pages of a row, by their place in it.
struct Columns {
  int64_t first = 0, count = 0;
};

class CachePolicy {
 public:
  virtual ~CachePolicy() = default;

  // Most slots that a row holds at once while its sequence sees `tokens` tokens, those of the step
  // that it is in included. At most `tokens`, and no less for more tokens.
  virtual int64_t bound(int64_t tokens) const = 0;
  // The last token count at which a step that begins after `tokens` tokens may end, over `tokens`.
  // Rows are evicted from at these counts only.
  virtual int64_t step_end(int64_t tokens) const = 0;
  // What to drop of row `row`, which holds `slots` slots, once `tokens` tokens have been seen.
  virtual Columns Evicted(int64_t row, int64_t slots, int64_t tokens) const = 0;
  // Slot i of every row has token i for good, so that the pages of a prefix are what any sequence
  // with that prefix has.
  virtual bool keeps_prefix() const = 0;
  // Whether a sequence of `from` tokens still holds what it held after `to`, and all tokens since.
  virtual bool can_roll_back(int64_t from, int64_t to) const = 0;
};

std::unique_ptr<const CachePolicy> MakeCachePolicy(const KvInfo& kv);

// Most pages that a row comes to have in a sequence of `tokens` tokens.
int64_t MostColumns(const CachePolicy& policy, int64_t page_tokens, int64_t tokens);
// The same of all rows together, in bytes; `tokens` is a context, which a manifest bounds.
uint64_t SequenceBytes(const KvInfo& kv, int64_t tokens);

}  // namespace fretsaw
