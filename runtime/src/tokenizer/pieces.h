// The text between the normalizer and the model: a list of pieces, each a string or an added token.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "tokenizer/regex.h"

namespace fretsaw {

struct Piece {
  std::string text;
  int32_t token = -1;     // id of an added token, or -1 for text still to be split
  bool at_start = false;  // begins where the input begins: Metaspace's scheme "first" asks
};
using Pieces = std::vector<Piece>;

// What becomes of a delimiter.
enum class SplitBehavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };

// Appends the parts of `piece` that `spans` (a cover of its text) gives under `behavior`.
void SplitPiece(const Piece& piece, std::vector<Span>& spans, SplitBehavior behavior, Pieces& out);

// Spans of single characters that pass `test` and of the runs between them.
void FindChars(std::string_view text, bool (*test)(uint32_t), std::vector<Span>& out);

}  // namespace fretsaw
