// The command line of fretsaw-run.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"
#include "sampler/options.h"

namespace fretsaw::cli {

struct Options {
  std::string artifact;
  std::optional<std::string> prompt;       // "-": standard input
  std::optional<std::string> prompt_file;  // "-": standard input
  std::optional<std::string> ids;          // token ids, separated by commas or spaces
  bool chat = false;
  std::optional<std::string> system;
  std::vector<std::string> stop;
  int64_t max_new_tokens = 128;
  std::optional<int64_t> context;
  SamplingOptions sampling;
  bool ignore_eos = false;
  std::optional<int> threads;
  std::string cpu;
  bool verify = false;
  bool json = false;
  bool quiet = false;
  bool bench = false;
  std::optional<std::string> batch;  // file of requests; "-": standard input
  std::optional<std::string> embed;  // file of texts, one a line; "-": standard input
  std::optional<std::string> out;    // file of results, or of vectors
  int64_t max_batch_tokens = 2048, max_sequences = 64;
  std::optional<uint64_t> kv_memory;  // bytes
  int64_t prefill = 512, decode = 64, repeat = 3;

  bool has_prompt() const { return prompt || prompt_file || ids; }
};

struct Parsed {
  std::optional<Options> options;  // absent: print `text` and end well (--help, --version)
  std::string text;
};

// Errors: kUsage, with the words of the option that is wrong.
Result<Parsed> ParseOptions(int argc, const char* const* argv);

// Whether --json was asked for, even on a command line that does not parse.
bool WantsJson(int argc, const char* const* argv);

}  // namespace fretsaw::cli
