// The prompt, from wherever the command line says.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/result.h"
#include "cli/options.h"
#include "model/text_codec.h"

namespace fretsaw::cli {

// Token ids of the prompt. Errors: kFileNotFound, kIo, kBadInput (empty, invalid UTF-8, malformed
// ids), kUnsupported (no tokenizer, no chat template).
Result<std::vector<int32_t>> ReadPrompt(const Options& options, const TextCodec& codec);

}  // namespace fretsaw::cli
