#include "tokenizer/pieces.h"

#include <algorithm>

#include "tokenizer/utf8.h"

namespace fretsaw {
namespace {

void MergeContiguous(std::vector<Span>& spans) {
  std::vector<Span> out;
  bool previous = false;
  for (const Span& s : spans) {
    if (s.match == previous && !out.empty()) {
      out.back().end = s.end;
    } else {
      out.push_back(s);
    }
    previous = s.match;
  }
  spans = std::move(out);
}

// Joins each match to the stretch before it (in the order given); a match after a match stands
// alone.
template <typename Join>
void MergeMatches(std::vector<Span>& spans, Join join) {
  std::vector<Span> out;
  bool previous = false;
  for (const Span& s : spans) {
    if (s.match && !previous && !out.empty()) {
      join(out.back(), s);
    } else {
      out.push_back(s);
    }
    previous = s.match;
  }
  spans = std::move(out);
}

}  // namespace

void SplitPiece(const Piece& piece, std::vector<Span>& spans, SplitBehavior behavior, Pieces& out) {
  switch (behavior) {
    case SplitBehavior::kRemoved:
      std::erase_if(spans, [](const Span& s) { return s.match; });
      break;
    case SplitBehavior::kIsolated:
      break;
    case SplitBehavior::kContiguous:
      MergeContiguous(spans);
      break;
    case SplitBehavior::kMergedWithPrevious:
      MergeMatches(spans, [](Span& last, const Span& s) { last.end = s.end; });
      break;
    case SplitBehavior::kMergedWithNext:
      std::ranges::reverse(spans);
      MergeMatches(spans, [](Span& last, const Span& s) { last.begin = s.begin; });
      std::ranges::reverse(spans);
      break;
  }
  for (const Span& s : spans) {
    if (s.begin == s.end) continue;
    out.push_back(
        {piece.text.substr(s.begin, s.end - s.begin), -1, piece.at_start && s.begin == 0});
  }
}

void FindChars(std::string_view text, bool (*test)(uint32_t), std::vector<Span>& out) {
  out.clear();
  size_t previous = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t begin = at;
    if (!test(utf8::Next(text, at))) continue;
    if (previous != begin) out.push_back({previous, begin, false});
    out.push_back({begin, at, true});
    previous = at;
  }
  if (previous != text.size()) out.push_back({previous, text.size(), false});
}

}  // namespace fretsaw
