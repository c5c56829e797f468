// Normalizers: text to text, before added tokens with `normalized` are looked for.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "tokenizer/config.h"
#include "tokenizer/pieces.h"

namespace fretsaw {

class Normalizer {
 public:
  Normalizer() = default;  // changes nothing
  // Throws ConfigFailure.
  explicit Normalizer(const Config& config);

  // Rewrites `piece.text`; clears `piece.at_start` when characters at its front were removed.
  VoidResult Apply(Piece& piece) const;

 private:
  using Step = std::function<VoidResult(Piece&)>;
  void Add(const Config& config, int depth);
  void AddBert(const Config& config);
  void AddReplace(const Config& config);

  std::vector<Step> steps_;  // a Sequence is flattened
};

// "pattern" of Replace and Split: {"String": s} or {"Regex": s}. Throws ConfigFailure.
Regex PatternOf(const Config& config);

// The 256 printable stand-ins of GPT-2's byte-level alphabet, and the way back (-1: not one of
// them).
void AppendByteLevel(std::string_view bytes, std::string& out);
int ByteLevelByte(uint32_t code_point);

}  // namespace fretsaw
