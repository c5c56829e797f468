#include "base/sha256.h"

#include <nettle/sha2.h>

namespace fretsaw {

Digest Sha256(std::initializer_list<std::span<const uint8_t>> parts) {
  sha256_ctx context;
  sha256_init(&context);
  for (const auto& part : parts) sha256_update(&context, part.size(), part.data());
  Digest digest;
  sha256_digest(&context, digest.size(), digest.data());
  return digest;
}

std::string ToHex(const Digest& digest) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  text.reserve(digest.size() * 2);
  for (const uint8_t byte : digest) {
    text.push_back(kDigits[byte >> 4]);
    text.push_back(kDigits[byte & 15]);
  }
  return text;
}

}  // namespace fretsaw
