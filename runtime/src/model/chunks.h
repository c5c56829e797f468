// How a prompt may be cut into steps.
#pragma once

#include <cstdint>

#include "base/result.h"

namespace fretsaw {

// Sparse attention chooses what a block of queries reads from all of the block's tokens that are in
// the step. Cut anywhere, a prompt would be read differently in every schedule; cut between blocks,
// it is not. A single token of a sequence is taken for decoding, so no piece may be one.
struct ChunkRule {
  int64_t align = 1;   // all pieces but a prompt's last end at a multiple of this position
  bool whole = false;  // prompts are not cut at all
};

// Most of the `remaining` tokens, of which the first has position `at`, that may go into a step
// with room for `most`; 0 when none may. Never 0 where `most` is at least 2 * align, unless
// `whole`. With `align` over 1 neither this piece nor the rest is a single token, if `remaining` is
// not.
int64_t NextChunk(const ChunkRule& rule, int64_t at, int64_t remaining, int64_t most);

// What to say of a prompt that does not fit a step and may not be cut. `step` is the room of a
// step, `chunk` what the program was compiled for.
Error NotOneStep(int64_t prompt, int64_t step, int64_t chunk);

}  // namespace fretsaw
