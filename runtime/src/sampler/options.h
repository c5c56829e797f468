// What a user may ask of the sampler, and which requests are impossible.
#pragma once

#include <cstdint>

#include "base/result.h"

namespace fretsaw {

struct SamplingOptions {
  double temperature = 0.0;         // 0: greedy, the most likely token
  int64_t top_k = 0;                // keep the k most likely; 0: all
  double top_p = 1.0;               // keep the smallest set with this probability; 1: all
  double min_p = 0.0;               // drop tokens below this share of the best one's probability
  double repetition_penalty = 1.0;  // over 1: tokens seen before become less likely; 1: off
  uint64_t seed = 0;
};

// Errors: kUsage, naming the option, its value and what is allowed.
VoidResult CheckSampling(const SamplingOptions& options);

}  // namespace fretsaw
