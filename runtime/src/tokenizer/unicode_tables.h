// Tables behind unicode.h; the .cc is generated. Ranges are inclusive and sorted.
#pragma once

#include <cstddef>
#include <cstdint>
#include <iterator>

namespace fretsaw::unicode {

struct Range {
  uint32_t first;
  uint32_t last;
};
struct CasePair {
  uint32_t upper;
  uint32_t lower;
};

#define FRETSAW_UNICODE_TABLE(name) \
  extern const Range name[];        \
  extern const size_t name##Size;

FRETSAW_UNICODE_TABLE(kOnigWordDiff)
FRETSAW_UNICODE_TABLE(kRustWordDiff)
FRETSAW_UNICODE_TABLE(kRustNumericDiff)
FRETSAW_UNICODE_TABLE(kMarkDiff)
FRETSAW_UNICODE_TABLE(kBertMarkDiff)
FRETSAW_UNICODE_TABLE(kBertPunctDiff)
FRETSAW_UNICODE_TABLE(kBertOtherDiff)
FRETSAW_UNICODE_TABLE(kNormalFormInert)
FRETSAW_UNICODE_TABLE(kHan)
FRETSAW_UNICODE_TABLE(kHiragana)
FRETSAW_UNICODE_TABLE(kKatakana)
FRETSAW_UNICODE_TABLE(kHangul)
FRETSAW_UNICODE_TABLE(kLatin)
FRETSAW_UNICODE_TABLE(kGreek)
FRETSAW_UNICODE_TABLE(kCyrillic)
FRETSAW_UNICODE_TABLE(kArabic)
FRETSAW_UNICODE_TABLE(kHebrew)
FRETSAW_UNICODE_TABLE(kThai)
#undef FRETSAW_UNICODE_TABLE

extern const uint32_t kCategoryRuns[];
extern const size_t kCategoryRunsSize;
extern const CasePair kLowerExceptions[];
extern const size_t kLowerExceptionsSize;

}  // namespace fretsaw::unicode
