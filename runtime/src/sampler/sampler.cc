#include "sampler/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace fretsaw {
namespace {

bool MoreLikely(const Candidate& a, const Candidate& b) {
  return a.probability != b.probability ? a.probability > b.probability : a.token < b.token;
}

void Normalize(std::vector<Candidate>* candidates) {
  double total = 0;
  for (const Candidate& c : *candidates) total += c.probability;
  for (Candidate& c : *candidates) c.probability /= total;
}

Error NotFinite() {
  return {Status::kInternal, "the model produced no finite logit; verify the artifact"};
}

}  // namespace

Sampler::Sampler(const SamplingOptions& options, int64_t vocab_size)
    : options_(options), random_(options.seed) {
  if (options.repetition_penalty != 1.0) seen_.resize(static_cast<size_t>(vocab_size), 0);
  candidates_.reserve(options.temperature > 0 ? static_cast<size_t>(vocab_size) : 1);
}

Result<Sampler> Sampler::Create(const SamplingOptions& options, int64_t vocab_size) {
  if (auto ok = CheckSampling(options); !ok) return ok.error();
  return Sampler(options, vocab_size);
}

void Sampler::Saw(int32_t token) {
  if (token >= 0 && static_cast<size_t>(token) < seen_.size()) {
    seen_[static_cast<size_t>(token)] = 1;
  }
}

float Sampler::Penalized(std::span<const float> logits, size_t token) const {
  const float logit = logits[token];
  if (token >= seen_.size() || seen_[token] == 0) return logit;
  const auto penalty = static_cast<float>(options_.repetition_penalty);
  return logit < 0 ? logit * penalty : logit / penalty;
}

Result<int32_t> Sampler::Greedy(std::span<const float> logits) const {
  float best = -std::numeric_limits<float>::infinity();
  int32_t token = -1;
  for (size_t i = 0; i < logits.size(); ++i) {
    const float logit = Penalized(logits, i);
    if (logit > best) {  // false for NaN
      best = logit;
      token = static_cast<int32_t>(i);
    }
  }
  if (token < 0 || !std::isfinite(best)) return NotFinite();
  return token;
}

Result<std::span<const Candidate>> Sampler::Distribution(std::span<const float> logits) {
  auto greedy = Greedy(logits);
  if (!greedy) return greedy.error();
  candidates_.clear();
  if (options_.temperature == 0) {
    candidates_.push_back({greedy.value(), 1.0});
    return std::span<const Candidate>(candidates_);
  }
  const auto best = static_cast<size_t>(greedy.value());
  const double top = Penalized(logits, best);
  for (size_t i = 0; i < logits.size(); ++i) {
    const double logit = Penalized(logits, i);
    if (std::isnan(logit)) return NotFinite();
    // Differences before the division: a tiny temperature must not overflow.
    candidates_.push_back(
        {static_cast<int32_t>(i), std::exp((logit - top) / options_.temperature)});
  }
  KeepTopK();
  Normalize(&candidates_);
  KeepTopP();
  KeepMinP();
  Normalize(&candidates_);
  std::sort(candidates_.begin(), candidates_.end(),
            [](const Candidate& a, const Candidate& b) { return a.token < b.token; });
  return std::span<const Candidate>(candidates_);
}

// Tokens equal to the k-th most likely one stay, as in transformers.
void Sampler::KeepTopK() {
  const auto k = static_cast<size_t>(options_.top_k);
  if (k == 0 || k >= candidates_.size()) return;
  const auto kth = candidates_.begin() + static_cast<ptrdiff_t>(k - 1);
  std::nth_element(candidates_.begin(), kth, candidates_.end(), MoreLikely);
  const double threshold = kth->probability;
  std::erase_if(candidates_, [&](const Candidate& c) { return c.probability < threshold; });
}

// Keeps the most likely tokens until their sum reaches top_p; at least one. Sorts in growing
// blocks: the set is nearly always a few hundred of tens of thousands.
void Sampler::KeepTopP() {
  if (options_.top_p >= 1) return;
  double sum = 0;
  size_t kept = 0;
  size_t sorted = 0;
  for (size_t block = 256; kept < candidates_.size(); block *= 4) {
    const size_t end = std::min(candidates_.size(), sorted + block);
    std::partial_sort(candidates_.begin() + static_cast<ptrdiff_t>(sorted),
                      candidates_.begin() + static_cast<ptrdiff_t>(end), candidates_.end(),
                      MoreLikely);
    sorted = end;
    while (kept < sorted && sum < options_.top_p) sum += candidates_[kept++].probability;
    if (sum >= options_.top_p) break;
  }
  candidates_.resize(std::max<size_t>(kept, 1));
}

// The threshold is relative, so it does not matter that top-p has not been renormalised.
void Sampler::KeepMinP() {
  if (options_.min_p <= 0) return;
  double top = 0;
  for (const Candidate& c : candidates_) top = std::max(top, c.probability);
  std::erase_if(candidates_,
                [&](const Candidate& c) { return c.probability < options_.min_p * top; });
}

Result<int32_t> Sampler::Pick(std::span<const float> logits) {
  if (options_.temperature == 0) return Greedy(logits);
  auto distribution = Distribution(logits);
  if (!distribution) return distribution.error();
  const double draw = random_.Uniform();
  double sum = 0;
  for (const Candidate& c : distribution.value()) {
    sum += c.probability;
    if (draw < sum) return c.token;
  }
  return distribution.value().back().token;  // rounding left the sum just under the draw
}

}  // namespace fretsaw
