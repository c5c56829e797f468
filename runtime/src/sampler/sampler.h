// Picks the next token from logits. Rules and their order are those of transformers' generate:
// repetition penalty, temperature, top-k, top-p, min-p; then a draw.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"
#include "sampler/options.h"
#include "sampler/prng.h"

namespace fretsaw {

struct Candidate {
  int32_t token = 0;
  double probability = 0;
};

// One per sequence. Buffers are sized once; Pick allocates nothing. Not thread-safe.
class Sampler {
 public:
  // Errors: those of CheckSampling.
  static Result<Sampler> Create(const SamplingOptions& options, int64_t vocab_size);

  // Tells the repetition penalty about a token of the prompt or one that was generated.
  void Saw(int32_t token);

  // The next token; `logits` are [V]. Greedy ties go to the lowest id. The draw walks the surviving
  // tokens in order of their ids. Errors: kInternal (no finite logit).
  Result<int32_t> Pick(std::span<const float> logits);

  // The surviving tokens and their probabilities, by ascending id; what Pick draws from. Valid
  // until the next call. With temperature 0 the one greedy token.
  Result<std::span<const Candidate>> Distribution(std::span<const float> logits);

 private:
  Sampler(const SamplingOptions& options, int64_t vocab_size);
  Result<int32_t> Greedy(std::span<const float> logits) const;
  float Penalized(std::span<const float> logits, size_t token) const;
  void KeepTopK();
  void KeepTopP();
  void KeepMinP();

  SamplingOptions options_;
  SplitMix64 random_;
  std::vector<uint8_t> seen_;          // [V], only with a penalty
  std::vector<Candidate> candidates_;  // probability holds a logit until it is normalised
};

}  // namespace fretsaw
