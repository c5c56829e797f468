#include "sampler/options.h"

#include <cmath>
#include <cstdio>
#include <string>

namespace fretsaw {
namespace {

Error Impossible(const char* name, double value, const char* allowed) {
  char text[160];
  std::snprintf(text, sizeof text, "%s: %g is impossible; it must be %s", name, value, allowed);
  return {Status::kUsage, text};
}

}  // namespace

VoidResult CheckSampling(const SamplingOptions& o) {
  // Written as "not (allowed)" so that NaN is refused too.
  if (!(o.temperature >= 0 && std::isfinite(o.temperature))) {
    return Impossible("temperature", o.temperature, "0 (greedy) or a positive number");
  }
  if (o.top_k < 0) {
    return Impossible("top-k", static_cast<double>(o.top_k), "0 (all tokens) or more");
  }
  if (!(o.top_p > 0 && o.top_p <= 1)) return Impossible("top-p", o.top_p, "over 0 and at most 1");
  if (!(o.min_p >= 0 && o.min_p <= 1)) return Impossible("min-p", o.min_p, "between 0 and 1");
  if (!(o.repetition_penalty > 0 && std::isfinite(o.repetition_penalty))) {
    return Impossible("repetition-penalty", o.repetition_penalty, "a positive number");
  }
  return Ok{};
}

}  // namespace fretsaw
