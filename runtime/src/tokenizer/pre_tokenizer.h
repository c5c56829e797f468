// Pre-tokenizers: split pieces of text before the model sees them. Added tokens pass untouched.
#pragma once

#include <functional>
#include <vector>

#include "tokenizer/config.h"
#include "tokenizer/pieces.h"

namespace fretsaw {

class PreTokenizer {
 public:
  PreTokenizer() = default;  // splits nothing
  // Throws ConfigFailure.
  explicit PreTokenizer(const Config& config);

  VoidResult Apply(Pieces& pieces) const;

 private:
  // Appends the parts of one piece of text to the list.
  using Step = std::function<VoidResult(Piece&, Pieces&)>;
  void Add(const Config& config, int depth);
  void AddByteLevel(const Config& config);
  void AddMetaspace(const Config& config);
  void AddCharSplit(bool (*test)(uint32_t), SplitBehavior behavior);

  std::vector<Step> steps_;  // a Sequence is flattened
};

}  // namespace fretsaw
