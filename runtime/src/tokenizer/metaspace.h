// Options of Metaspace, which is both a pre-tokenizer and a decoder.
#pragma once

#include <string>

#include "tokenizer/config.h"

namespace fretsaw {

struct MetaspaceOptions {
  enum Scheme { kAlways, kFirst, kNever };
  std::string replacement;  // one character
  Scheme scheme = kAlways;
  bool split = true;

  // Throws ConfigFailure.
  explicit MetaspaceOptions(const Config& config);
};

}  // namespace fretsaw
