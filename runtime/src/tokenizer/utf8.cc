#include "tokenizer/utf8.h"

namespace fretsaw::utf8 {
namespace {

struct Step {
  size_t length;  // bytes of the code point, or of the maximal invalid part
  bool valid;
  bool cut;  // the text ends inside a sequence that is valid so far
};

// Table 3-7 of the Unicode Standard: the second byte's range depends on the lead.
Step StepAt(std::string_view text, size_t at) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned char lead = byte(at);
  if (lead < 0x80) return {1, true, false};
  if (lead < 0xC2 || lead > 0xF4) return {1, false, false};
  const size_t want = Length(lead);
  for (size_t i = 1; i < want; ++i) {
    if (at + i >= text.size()) return {i, false, true};
    unsigned char low = 0x80, high = 0xBF;
    if (i == 1) {
      if (lead == 0xE0) low = 0xA0;
      if (lead == 0xED) high = 0x9F;
      if (lead == 0xF0) low = 0x90;
      if (lead == 0xF4) high = 0x8F;
    }
    if (byte(at + i) < low || byte(at + i) > high) return {i, false, false};
  }
  return {want, true, false};
}

}  // namespace

std::optional<size_t> FirstInvalid(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    const Step step = StepAt(text, at);
    if (!step.valid) return at;
    at += step.length;
  }
  return std::nullopt;
}

uint32_t Next(std::string_view text, size_t& at) {
  const auto lead = static_cast<unsigned char>(text[at]);
  const size_t length = Length(lead);
  uint32_t value = length == 1 ? lead : lead & (0xFFu >> (length + 1));
  for (size_t i = 1; i < length; ++i) {
    value = value << 6 | (static_cast<unsigned char>(text[at + i]) & 0x3Fu);
  }
  at += length;
  return value;
}

uint32_t Previous(std::string_view text, size_t& end) {
  do {
    --end;
  } while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0u) == 0x80u);
  size_t at = end;
  return Next(text, at);
}

void Append(uint32_t c, std::string& out) {
  const auto put = [&](uint32_t byte) { out.push_back(static_cast<char>(byte)); };
  if (c < 0x80) {
    put(c);
  } else if (c < 0x800) {
    put(0xC0 | c >> 6);
    put(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    put(0xE0 | c >> 12);
    put(0x80 | (c >> 6 & 0x3F));
    put(0x80 | (c & 0x3F));
  } else {
    put(0xF0 | c >> 18);
    put(0x80 | (c >> 12 & 0x3F));
    put(0x80 | (c >> 6 & 0x3F));
    put(0x80 | (c & 0x3F));
  }
}

void LossyDecoder::Push(std::string_view bytes, bool final, std::string& out) {
  pending_.append(bytes);
  size_t at = 0;
  while (at < pending_.size()) {
    const Step step = StepAt(pending_, at);
    if (step.cut && !final) break;
    if (step.valid) {
      out.append(pending_, at, step.length);
    } else {
      out.append("\xEF\xBF\xBD");
    }
    at += step.length;
  }
  pending_.erase(0, at);
}

}  // namespace fretsaw::utf8
