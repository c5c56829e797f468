#include "tokenizer/unicode.h"

#include <utf8proc.h>

#include <algorithm>
#include <cctype>
#include <span>

namespace fretsaw::unicode {
namespace {

constexpr uint32_t Bit(Category c) { return 1u << c; }
constexpr uint32_t kLetter = Bit(kLu) | Bit(kLl) | Bit(kLt) | Bit(kLm) | Bit(kLo);
constexpr uint32_t kMarks = Bit(kMn) | Bit(kMc) | Bit(kMe);
constexpr uint32_t kNumber = Bit(kNd) | Bit(kNl) | Bit(kNo);
constexpr uint32_t kPunct =
    Bit(kPc) | Bit(kPd) | Bit(kPs) | Bit(kPe) | Bit(kPi) | Bit(kPf) | Bit(kPo);
constexpr uint32_t kSymbol = Bit(kSm) | Bit(kSc) | Bit(kSk) | Bit(kSo);
constexpr uint32_t kSeparator = Bit(kZs) | Bit(kZl) | Bit(kZp);
constexpr uint32_t kOther = Bit(kCn) | Bit(kCc) | Bit(kCf) | Bit(kCs) | Bit(kCo);
constexpr uint32_t kWord = kLetter | kMarks | Bit(kNd) | Bit(kPc);

bool InRanges(std::span<const Range> table, uint32_t c) {
  const auto it = std::ranges::upper_bound(table, c, {}, &Range::first);
  return it != table.begin() && c <= std::prev(it)->last;
}

bool InSet(uint32_t mask, uint32_t c) { return (mask >> CategoryOf(c) & 1u) != 0; }

bool IsAsciiPunct(uint32_t c) { return c < 0x80 && std::ispunct(static_cast<int>(c)) != 0; }

struct NamedMask {
  std::string_view name;
  uint32_t mask;
};
constexpr NamedMask kMasks[] = {
    {"L", kLetter},
    {"M", kMarks},
    {"N", kNumber},
    {"P", kPunct},
    {"S", kSymbol},
    {"Z", kSeparator},
    {"C", kOther},
    {"Letter", kLetter},
    {"Mark", kMarks},
    {"Number", kNumber},
    {"Punctuation", kPunct},
    {"Symbol", kSymbol},
    {"Separator", kSeparator},
    {"Cn", Bit(kCn)},
    {"Lu", Bit(kLu)},
    {"Ll", Bit(kLl)},
    {"Lt", Bit(kLt)},
    {"Lm", Bit(kLm)},
    {"Lo", Bit(kLo)},
    {"Mn", Bit(kMn)},
    {"Mc", Bit(kMc)},
    {"Me", Bit(kMe)},
    {"Nd", Bit(kNd)},
    {"Nl", Bit(kNl)},
    {"No", Bit(kNo)},
    {"Pc", Bit(kPc)},
    {"Pd", Bit(kPd)},
    {"Ps", Bit(kPs)},
    {"Pe", Bit(kPe)},
    {"Pi", Bit(kPi)},
    {"Pf", Bit(kPf)},
    {"Po", Bit(kPo)},
    {"Sm", Bit(kSm)},
    {"Sc", Bit(kSc)},
    {"Sk", Bit(kSk)},
    {"So", Bit(kSo)},
    {"Zs", Bit(kZs)},
    {"Zl", Bit(kZl)},
    {"Zp", Bit(kZp)},
    {"Cc", Bit(kCc)},
    {"Cf", Bit(kCf)},
    {"Co", Bit(kCo)},
};

struct NamedTable {
  std::string_view name;
  const Range* table;
  const size_t* size;
};
const NamedTable kScripts[] = {
    {"Han", kHan, &kHanSize},
    {"Hiragana", kHiragana, &kHiraganaSize},
    {"Katakana", kKatakana, &kKatakanaSize},
    {"Hangul", kHangul, &kHangulSize},
    {"Latin", kLatin, &kLatinSize},
    {"Greek", kGreek, &kGreekSize},
    {"Cyrillic", kCyrillic, &kCyrillicSize},
    {"Arabic", kArabic, &kArabicSize},
    {"Hebrew", kHebrew, &kHebrewSize},
    {"Thai", kThai, &kThaiSize},
};

// Property names are compared without case, spaces, hyphens and underscores, as Oniguruma does.
bool SameName(std::string_view a, std::string_view b) {
  const auto skip = [](char c) { return c == ' ' || c == '-' || c == '_'; };
  size_t i = 0, j = 0;
  for (;;) {
    while (i < a.size() && skip(a[i])) ++i;
    while (j < b.size() && skip(b[j])) ++j;
    if (i == a.size() || j == b.size()) return i == a.size() && j == b.size();
    if (std::tolower(static_cast<unsigned char>(a[i++])) !=
        std::tolower(static_cast<unsigned char>(b[j++]))) {
      return false;
    }
  }
}

void AddRange(uint32_t first, uint32_t last, std::vector<Range>& out) {
  if (!out.empty() && out.back().last + 1 == first) {
    out.back().last = last;
  } else {
    out.push_back({first, last});
  }
}

void MaskRanges(uint32_t mask, std::vector<Range>& out) {
  for (size_t i = 0; i < kCategoryRunsSize; ++i) {
    if ((mask >> (kCategoryRuns[i] & 31u) & 1u) == 0) continue;
    const uint32_t end = i + 1 < kCategoryRunsSize ? kCategoryRuns[i + 1] >> 5 : 0x110000;
    AddRange(kCategoryRuns[i] >> 5, end - 1, out);
  }
}

// Symmetric difference of two sorted range lists, by sweeping over their edges.
std::vector<Range> Xor(std::span<const Range> a, std::span<const Range> b) {
  std::vector<uint32_t> edges;
  for (auto list : {a, b}) {
    for (const Range& r : list) {
      edges.push_back(r.first);
      edges.push_back(r.last + 1);
    }
  }
  std::ranges::sort(edges);
  std::vector<Range> out;
  for (size_t i = 0; i + 1 < edges.size(); i += 2) {
    if (edges[i] < edges[i + 1]) AddRange(edges[i], edges[i + 1] - 1, out);
  }
  return out;
}

std::vector<Range> Complement(std::span<const Range> ranges) {
  const Range all[] = {{0, 0x10FFFF}};
  return Xor(all, ranges);
}

// Normal form of a stretch without the characters that the library's older tables do not know.
void NormalizeStretch(std::string_view text, NormalForm form, std::string& out) {
  if (text.empty()) return;
  int options = UTF8PROC_STABLE;
  const bool compose = form == NormalForm::kC || form == NormalForm::kKC;
  options |= compose ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE;
  if (form == NormalForm::kKC || form == NormalForm::kKD) options |= UTF8PROC_COMPAT;
  utf8proc_uint8_t* result = nullptr;
  const auto n = utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                              static_cast<utf8proc_ssize_t>(text.size()), &result,
                              static_cast<utf8proc_option_t>(options));
  if (n < 0) {
    out.append(text);  // only on lack of memory: the text is valid UTF-8
    return;
  }
  out.append(reinterpret_cast<const char*>(result), static_cast<size_t>(n));
  free(result);  // NOLINT: utf8proc allocates with malloc
}

}  // namespace

Category CategoryOf(uint32_t c) {
  const std::span runs(kCategoryRuns, kCategoryRunsSize);
  const auto it = std::ranges::upper_bound(runs, c << 5 | 31u);
  return static_cast<Category>(*std::prev(it) & 31u);
}

bool IsWhiteSpace(uint32_t c) {
  return (c >= 9 && c <= 13) || c == ' ' || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F ||
         c == 0x3000;
}

bool IsRustWord(uint32_t c) {
  return InSet(kWord, c) != InRanges({kRustWordDiff, kRustWordDiffSize}, c);
}

bool IsRustNumeric(uint32_t c) {
  return InSet(kNumber, c) != InRanges({kRustNumericDiff, kRustNumericDiffSize}, c);
}

bool IsMark(uint32_t c) { return InSet(kMarks, c) != InRanges({kMarkDiff, kMarkDiffSize}, c); }

bool IsBertMark(uint32_t c) {
  return InSet(Bit(kMn), c) != InRanges({kBertMarkDiff, kBertMarkDiffSize}, c);
}

bool IsBertPunct(uint32_t c) {
  return (InSet(kPunct, c) || IsAsciiPunct(c)) != InRanges({kBertPunctDiff, kBertPunctDiffSize}, c);
}

bool IsBertControl(uint32_t c) {
  if (c == '\t' || c == '\n' || c == '\r') return false;
  if (c == 0 || c == 0xFFFD) return true;
  return InSet(Bit(kCc) | Bit(kCf) | Bit(kCo), c) !=
         InRanges({kBertOtherDiff, kBertOtherDiffSize}, c);
}

bool IsBertChinese(uint32_t c) {
  static constexpr Range kBlocks[] = {{0x3400, 0x4DBF},   {0x4E00, 0x9FFF},   {0xF900, 0xFAFF},
                                      {0x20000, 0x2A6DF}, {0x2A700, 0x2B73F}, {0x2B740, 0x2B81F},
                                      {0x2B920, 0x2CEAF}, {0x2F800, 0x2FA1F}};
  return InRanges(kBlocks, c);
}

void AppendLower(uint32_t c, std::string& out) {
  if (c < 0x80) {
    out.push_back(static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c));
    return;
  }
  if (c == 0x130) {  // the one character whose lower case is two
    out.append("i\xCC\x87");
    return;
  }
  const std::span table(kLowerExceptions, kLowerExceptionsSize);
  const auto it = std::ranges::lower_bound(table, c, {}, &CasePair::upper);
  const uint32_t lower = it != table.end() && it->upper == c
                             ? it->lower
                             : static_cast<uint32_t>(utf8proc_tolower(static_cast<int>(c)));
  utf8proc_uint8_t buffer[4];
  const auto n = utf8proc_encode_char(static_cast<int>(lower), buffer);
  out.append(reinterpret_cast<const char*>(buffer), static_cast<size_t>(n));
}

std::string Normalize(std::string_view text, NormalForm form) {
  std::string out;
  out.reserve(text.size());
  const std::span inert(kNormalFormInert, kNormalFormInertSize);
  size_t stretch = 0;
  for (size_t at = 0; at < text.size();) {
    if (static_cast<unsigned char>(text[at]) < 0xE0) {  // every inert character is above U+0800
      ++at;
      continue;
    }
    utf8proc_int32_t c = 0;
    const auto n = utf8proc_iterate(reinterpret_cast<const utf8proc_uint8_t*>(text.data()) + at,
                                    static_cast<utf8proc_ssize_t>(text.size() - at), &c);
    const size_t length = n > 0 ? static_cast<size_t>(n) : 1;
    if (InRanges(inert, static_cast<uint32_t>(c))) {
      NormalizeStretch(text.substr(stretch, at - stretch), form, out);
      out.append(text.substr(at, length));
      stretch = at + length;
    }
    at += length;
  }
  NormalizeStretch(text.substr(stretch), form, out);
  return out;
}

bool PropertyRanges(std::string_view name, bool negate, std::vector<Range>& out) {
  if (!name.empty() && name.front() == '^') return PropertyRanges(name.substr(1), !negate, out);
  std::vector<Range> ranges;
  if (SameName(name, "w") || SameName(name, "Word")) {
    MaskRanges(kWord, ranges);
    ranges = Xor(ranges, {kOnigWordDiff, kOnigWordDiffSize});
  } else if (SameName(name, "d") || SameName(name, "Digit")) {
    MaskRanges(Bit(kNd), ranges);
  } else if (SameName(name, "Punct")) {
    MaskRanges(kPunct | kSymbol, ranges);  // the library's Oniguruma counts symbols
  }
  for (const NamedMask& entry : kMasks) {
    if (ranges.empty() && SameName(name, entry.name)) MaskRanges(entry.mask, ranges);
  }
  for (const NamedTable& entry : kScripts) {
    if (ranges.empty() && SameName(name, entry.name)) {
      ranges.assign(entry.table, entry.table + *entry.size);
    }
  }
  if (ranges.empty()) return false;
  out = negate ? Complement(ranges) : std::move(ranges);
  return true;
}

}  // namespace fretsaw::unicode
