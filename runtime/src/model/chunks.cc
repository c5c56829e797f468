#include "model/chunks.h"

#include <algorithm>
#include <string>

namespace fretsaw {

int64_t NextChunk(const ChunkRule& rule, int64_t at, int64_t remaining, int64_t most) {
  if (remaining <= most) return remaining;
  if (rule.whole) return 0;
  if (rule.align == 1) return most;
  int64_t count = (at + most) / rule.align * rule.align - at;
  while (count > 0 && (count == 1 || remaining - count == 1)) count -= rule.align;
  return std::max<int64_t>(count, 0);
}

Error NotOneStep(int64_t prompt, int64_t step, int64_t chunk) {
  const std::string hint = prompt <= chunk
                               ? "raise max-batch-tokens to " + std::to_string(prompt) + " or more"
                               : "compile with --chunk " + std::to_string(prompt) + " or more";
  return {
      Status::kPromptTooLong,
      "the prompt has " + std::to_string(prompt) +
          " tokens; attention of this artifact reads a prompt in one step, which takes at most " +
          std::to_string(step) + "; shorten it, or " + hint};
}

}  // namespace fretsaw
