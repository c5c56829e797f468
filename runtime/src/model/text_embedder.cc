#include "model/text_embedder.h"

#include <algorithm>
#include <chrono>
#include <utility>

namespace fretsaw {
namespace {

constexpr int64_t kStepsAtOnce = 8;  // steps' worth of texts that are tokenized before a call

}  // namespace

VoidResult TextEmbedder::Add(std::string_view text) {
  auto encoded = EncodeTruncated(*codec_, text, encoder_->context());
  if (!encoded) return encoded.error();
  std::vector<int32_t>& ids = encoded.value().ids;
  totals_.texts += 1;
  totals_.tokens += std::ssize(ids);
  totals_.truncated += encoded.value().truncated ? 1 : 0;
  waiting_tokens_ += std::max<int64_t>(1, std::ssize(ids));
  waiting_.push_back(std::move(ids));
  return waiting_tokens_ < kStepsAtOnce * encoder_->chunk_tokens() ? VoidResult(Ok{}) : Flush();
}

VoidResult TextEmbedder::Flush() {
  if (waiting_.empty()) return Ok{};
  vectors_.clear();
  const auto start = std::chrono::steady_clock::now();
  auto ok = encoder_->Embed(waiting_, &vectors_);
  totals_.encode_ms +=
      std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
  if (!ok) return ok;
  waiting_.clear();
  waiting_tokens_ = 0;
  return sink_(vectors_);
}

std::vector<int32_t> Truncate(std::span<const int32_t> all, std::span<const int32_t> own,
                              int64_t limit) {
  // The special tokens are what surrounds the text's own.
  const int64_t special = std::max<int64_t>(0, std::ssize(all) - std::ssize(own));
  int64_t first = 0;
  while (first < special && !std::equal(own.begin(), own.end(), all.begin() + first)) ++first;
  std::vector<int32_t> cut(all.begin(), all.begin() + first);
  const int64_t kept = std::clamp<int64_t>(limit - special, 0, std::ssize(own));
  cut.insert(cut.end(), own.begin(), own.begin() + kept);
  cut.insert(cut.end(), all.end() - (special - first), all.end());
  cut.resize(static_cast<size_t>(std::min<int64_t>(std::ssize(cut), limit)));
  return cut;
}

Result<TruncatedIds> EncodeTruncated(const TextCodec& codec, std::string_view text, int64_t limit) {
  auto all = codec.Encode(text, true);
  if (!all) return all.error();
  if (std::ssize(all.value()) <= limit) return TruncatedIds{std::move(all).value(), false};
  auto own = codec.Encode(text, false);
  if (!own) return own.error();
  return TruncatedIds{Truncate(all.value(), own.value(), limit), true};
}

}  // namespace fretsaw
