// Character properties exactly as the Hugging Face tokenizers library sees them. That library draws
// on several Unicode versions at once; the names below say whose answer each property is.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "tokenizer/unicode_tables.h"

namespace fretsaw::unicode {

enum Category : uint8_t {
  kCn,
  kLu,
  kLl,
  kLt,
  kLm,
  kLo,
  kMn,
  kMc,
  kMe,
  kNd,
  kNl,
  kNo,
  kPc,
  kPd,
  kPs,
  kPe,
  kPi,
  kPf,
  kPo,
  kSm,
  kSc,
  kSk,
  kSo,
  kZs,
  kZl,
  kZp,
  kCc,
  kCf,
  kCs,
  kCo,
};

Category CategoryOf(uint32_t c);

bool IsWhiteSpace(uint32_t c);   // White_Space property
bool IsRustWord(uint32_t c);     // \w of the regex crate: added tokens, Whitespace
bool IsRustNumeric(uint32_t c);  // char::is_numeric: Digits
bool IsMark(uint32_t c);         // StripAccents
bool IsBertMark(uint32_t c);     // BertNormalizer strip_accents
bool IsBertPunct(uint32_t c);    // BertPreTokenizer, Punctuation
bool IsBertControl(uint32_t c);  // BertNormalizer clean_text
bool IsBertChinese(uint32_t c);  // BertNormalizer handle_chinese_chars

void AppendLower(uint32_t c, std::string& out);

enum class NormalForm { kC, kD, kKC, kKD };
// Normal form of valid UTF-8.
std::string Normalize(std::string_view text, NormalForm form);

// Code point ranges of a \p{...} property or class escape as the library's Oniguruma sees it.
// Returns false when the name is not one of the supported properties.
bool PropertyRanges(std::string_view name, bool negate, std::vector<Range>& out);

}  // namespace fretsaw::unicode
