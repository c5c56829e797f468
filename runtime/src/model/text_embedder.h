// Texts in, vectors out: tokenizes, cuts what is too long, and embeds many texts at a time.
#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "model/encoder.h"
#include "model/text_codec.h"

namespace fretsaw {

struct EmbedTotals {
  int64_t texts = 0;
  int64_t tokens = 0;     // special ones included, after cutting
  int64_t truncated = 0;  // texts that were cut to the model's context
  double encode_ms = 0;   // in the encoder, without tokenization
};

class TextEmbedder {
 public:
  // Called with whole rows of encoder->width() numbers, in the order of the texts.
  using Sink = std::function<VoidResult(std::span<const float>)>;

  // `encoder` and `codec` must outlive it.
  TextEmbedder(Encoder* encoder, const TextCodec* codec, Sink sink)
      : encoder_(encoder), codec_(codec), sink_(std::move(sink)) {}

  // Errors: those of TextCodec::Encode, Encoder::Embed and the sink.
  VoidResult Add(std::string_view text);
  // Embeds what is left. Errors: as Add.
  VoidResult Flush();

  const EmbedTotals& totals() const { return totals_; }

 private:
  Encoder* encoder_;
  const TextCodec* codec_;
  Sink sink_;
  std::vector<std::vector<int32_t>> waiting_;
  int64_t waiting_tokens_ = 0;
  std::vector<float> vectors_;
  EmbedTotals totals_;
};

struct TruncatedIds {
  std::vector<int32_t> ids;
  bool truncated = false;
};

// Ids of a text with special tokens, at most `limit`: a longer text loses its end, not its special
// tokens, as in Hugging Face's truncation. Errors: those of TextCodec::Encode.
Result<TruncatedIds> EncodeTruncated(const TextCodec& codec, std::string_view text, int64_t limit);

// The same from the ids with and without special tokens.
std::vector<int32_t> Truncate(std::span<const int32_t> all, std::span<const int32_t> own,
                              int64_t limit);

}  // namespace fretsaw
