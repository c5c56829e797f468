#include "tokenizer/normalizer.h"

#include <array>

#include "tokenizer/features.h"
#include "tokenizer/unicode.h"
#include "tokenizer/utf8.h"

namespace fretsaw {
namespace {

// Rebuilds the text character by character. `each` appends what stands for the character; appending
// nothing removes it.
template <typename Each>
void MapChars(Piece& piece, Each each) {
  std::string out;
  out.reserve(piece.text.size());
  for (size_t at = 0; at < piece.text.size();) {
    const size_t before = out.size();
    each(utf8::Next(piece.text, at), out);
    if (before == 0 && out.empty())
      piece.at_start = false;  // nothing is left of the first character
  }
  piece.text = std::move(out);
}

void Strip(Piece& piece, bool left, bool right) {
  size_t begin = 0, end = piece.text.size();
  while (left && begin < end) {
    size_t next = begin;
    if (!unicode::IsWhiteSpace(utf8::Next(piece.text, next))) break;
    begin = next;
  }
  while (right && end > begin) {
    size_t last = end;
    if (!unicode::IsWhiteSpace(utf8::Previous(piece.text, last))) break;
    end = last;
  }
  if (begin > 0) piece.at_start = false;
  piece.text = piece.text.substr(begin, end - begin);
}

VoidResult Replace(Piece& piece, const Regex& pattern, const std::string& content) {
  std::vector<Span> spans;
  if (auto found = pattern.FindAll(piece.text, spans); !found) return found.error();
  std::string out;
  out.reserve(piece.text.size());
  for (const Span& s : spans) {
    if (!s.match) {
      out.append(piece.text, s.begin, s.end - s.begin);
      continue;
    }
    // The replacement stands where the last replaced character stood, so more than one character at
    // the front means that the text no longer starts at offset zero.
    if (s.begin == 0 && s.end > 0 &&
        (content.empty() || s.end > utf8::Length(static_cast<unsigned char>(piece.text[0])))) {
      piece.at_start = false;
    }
    out += content;
  }
  piece.text = std::move(out);
  return Ok{};
}

struct ByteAlphabet {
  std::array<uint32_t, 256> forward{};
  std::array<int16_t, 0x200> backward;
  ByteAlphabet() {
    backward.fill(-1);
    uint32_t next = 0x100;
    for (uint32_t b = 0; b < 256; ++b) {
      const bool printable = (b >= 0x21 && b <= 0x7E) || (b >= 0xA1 && b <= 0xAC) || b >= 0xAE;
      forward[b] = printable ? b : next++;
      backward[forward[b]] = static_cast<int16_t>(b);
    }
  }
};

const ByteAlphabet& Alphabet() {
  static const ByteAlphabet alphabet;
  return alphabet;
}

}  // namespace

void AppendByteLevel(std::string_view bytes, std::string& out) {
  for (const char b : bytes) utf8::Append(Alphabet().forward[static_cast<unsigned char>(b)], out);
}

int ByteLevelByte(uint32_t c) { return c < 0x200 ? Alphabet().backward[c] : -1; }

Regex PatternOf(const Config& config) {
  const Config pattern = config.At("pattern");
  if (pattern.Has("Regex")) return Need(Regex::Compile(pattern.Text("Regex"), false), pattern);
  if (pattern.Has("String")) return Need(Regex::Compile(pattern.Text("String"), true), pattern);
  pattern.Corrupt("expected {\"String\": ...} or {\"Regex\": ...}");
}

Normalizer::Normalizer(const Config& config) {
  if (!config.IsNull()) Add(config, 0);
}

VoidResult Normalizer::Apply(Piece& piece) const {
  for (const Step& step : steps_) {
    if (auto done = step(piece); !done) return done.error();
  }
  return Ok{};
}

void Normalizer::AddReplace(const Config& config) {
  steps_.push_back([pattern = PatternOf(config), content = config.Text("content")](Piece& p) {
    return Replace(p, pattern, content);
  });
}

void Normalizer::AddBert(const Config& config) {
  const bool lowercase = config.Flag("lowercase", true);
  const bool accents = config.Flag("strip_accents", lowercase);
  const bool clean = config.Flag("clean_text", true);
  const bool chinese = config.Flag("handle_chinese_chars", true);
  steps_.push_back([=](Piece& piece) -> VoidResult {
    if (clean) {
      MapChars(piece, [](uint32_t c, std::string& out) {
        if (!unicode::IsBertControl(c)) utf8::Append(unicode::IsWhiteSpace(c) ? ' ' : c, out);
      });
    }
    if (chinese) {
      MapChars(piece, [](uint32_t c, std::string& out) {
        const bool alone = unicode::IsBertChinese(c);
        if (alone) out.push_back(' ');
        utf8::Append(c, out);
        if (alone) out.push_back(' ');
      });
    }
    if (accents) {
      piece.text = unicode::Normalize(piece.text, unicode::NormalForm::kD);
      MapChars(piece, [](uint32_t c, std::string& out) {
        if (!unicode::IsBertMark(c)) utf8::Append(c, out);
      });
    }
    if (lowercase) MapChars(piece, unicode::AppendLower);
    return Ok{};
  });
}

void Normalizer::Add(const Config& config, int depth) {
  const std::string type = config.Type("normalizer", features::kNormalizers);
  const auto form = [&](unicode::NormalForm f) {
    steps_.push_back([f](Piece& p) -> VoidResult {
      p.text = unicode::Normalize(p.text, f);
      return Ok{};
    });
  };
  if (type == "Sequence") {
    if (depth > 8) config.Corrupt("sequences nested deeper than 8");
    const Config list = config.At("normalizers");
    for (size_t i = 0; i < list.Size(); ++i) Add(list.At(i), depth + 1);
  } else if (type == "NFC") {
    form(unicode::NormalForm::kC);
  } else if (type == "NFD") {
    form(unicode::NormalForm::kD);
  } else if (type == "NFKC") {
    form(unicode::NormalForm::kKC);
  } else if (type == "NFKD") {
    form(unicode::NormalForm::kKD);
  } else if (type == "Lowercase") {
    steps_.push_back([](Piece& p) -> VoidResult {
      MapChars(p, unicode::AppendLower);
      return Ok{};
    });
  } else if (type == "StripAccents") {
    steps_.push_back([](Piece& p) -> VoidResult {
      MapChars(p, [](uint32_t c, std::string& out) {
        if (!unicode::IsMark(c)) utf8::Append(c, out);
      });
      return Ok{};
    });
  } else if (type == "BertNormalizer") {
    AddBert(config);
  } else if (type == "Replace") {
    AddReplace(config);
  } else if (type == "Prepend") {
    steps_.push_back([prefix = config.Text("prepend")](Piece& p) -> VoidResult {
      if (!p.text.empty()) p.text.insert(0, prefix);
      return Ok{};
    });
  } else if (type == "Strip") {
    steps_.push_back([left = config.Flag("strip_left"),
                      right = config.Flag("strip_right")](Piece& p) -> VoidResult {
      Strip(p, left, right);
      return Ok{};
    });
  } else {  // ByteLevel
    steps_.push_back([](Piece& p) -> VoidResult {
      std::string out;
      AppendByteLevel(p.text, out);
      p.text = std::move(out);
      return Ok{};
    });
  }
}

}  // namespace fretsaw
