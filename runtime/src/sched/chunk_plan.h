// Divides the tokens of one step among the prompts that are being read.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "model/chunks.h"

namespace fretsaw {

// `remaining[i]` (at least 1) is what prompt i, in order of admission, still needs; the result says
// how much of it goes into this step. Half of the budget is the oldest prompt's, so that none
// waits forever; the other half is shared evenly, and what short prompts leave over goes on to the
// longer ones, so that a short prompt is not stuck behind a long one. The sum is
// min(budget, sum of remaining), unless the rule forbids it.
//
// With a rule, every prompt stands at a multiple of its alignment. The oldest gets something if any
// piece of it that may go into a step fits the budget.
std::vector<int64_t> DividePrefill(int64_t budget, std::span<const int64_t> remaining,
                                   const ChunkRule& rule = {});

}  // namespace fretsaw
