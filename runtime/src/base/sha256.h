// SHA-256 (FIPS 180-4), the digest of every part of an artifact.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>

namespace fretsaw {

using Digest = std::array<uint8_t, 32>;

// Digest of the parts, one after another.
Digest Sha256(std::initializer_list<std::span<const uint8_t>> parts);

// Lower-case hexadecimal, 64 characters.
std::string ToHex(const Digest& digest);

}  // namespace fretsaw
