// UTF-8: the only text encoding inside the tokenizer. All offsets are bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace fretsaw::utf8 {

// Offset of the first byte that is not valid UTF-8 (overlong, surrogate, > U+10FFFF, cut), if any.
std::optional<size_t> FirstInvalid(std::string_view text);

// Decodes the code point at `at` and advances `at`. The text must be valid UTF-8, `at` < size.
uint32_t Next(std::string_view text, size_t& at);

// The code point that ends at `end` (> 0) of valid text; moves `end` to its start.
uint32_t Previous(std::string_view text, size_t& end);

void Append(uint32_t code_point, std::string& out);

// Bytes of the code point that starts with `lead` in valid text: 1 to 4.
inline size_t Length(unsigned char lead) {
  return lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
}

// Turns bytes into valid UTF-8, one U+FFFD for each maximal invalid part (Unicode 3.9, practice
// "substitution of maximal subparts", the same as Rust's from_utf8_lossy). With `final` false, a
// valid but unfinished sequence at the end stays in `pending`.
class LossyDecoder {
 public:
  void Push(std::string_view bytes, bool final, std::string& out);

 private:
  std::string pending_;  // at most 3 bytes between calls
};

}  // namespace fretsaw::utf8
