// Vectors of an encoder.
#include <algorithm>
#include <vector>

#include "capi/handles.h"
#include "model/text_embedder.h"

using namespace fretsaw;  // NOLINT(build/namespaces): the whole file is a thin skin over it

namespace {

// The encoder of `model`, when `floats` have room for `count` vectors.
Result<Encoder*> Ready(fsw_model* model, size_t count, const float* vectors, size_t floats) {
  if (model == nullptr) return capi::NullArgument("model");
  if (vectors == nullptr && count > 0) return capi::NullArgument("vectors");
  if (model->encoder == nullptr) return Encoder::NoEncoder(model->model->manifest());
  const auto width = static_cast<size_t>(model->encoder->width());
  if (floats / width < count) {
    return Error{Status::kUsage, "vectors has room for " + std::to_string(floats) + " floats; " +
                                     std::to_string(count) + " rows of " + std::to_string(width) +
                                     " are wanted"};
  }
  return model->encoder.get();
}

}  // namespace

int64_t fsw_embedding_width(const fsw_model* model) {
  return model == nullptr || model->encoder == nullptr ? 0 : model->encoder->width();
}

fsw_status fsw_embed(fsw_model* model, const int32_t* ids, const int64_t* offsets, size_t count,
                     float* vectors, size_t vector_floats) {
  return capi::Guard([&]() -> VoidResult {
    const auto held = capi::Hold(model);
    auto encoder = Ready(model, count, vectors, vector_floats);
    if (!encoder) return encoder.error();
    if (offsets == nullptr) return capi::NullArgument("offsets");
    std::vector<std::vector<int32_t>> texts(count);
    for (size_t i = 0; i < count; ++i) {
      const int64_t begin = offsets[i], end = offsets[i + 1];
      if (begin < 0 || end < begin) {
        return Error{Status::kUsage, "offsets fall or are negative at " + std::to_string(i)};
      }
      if (ids == nullptr && end > begin) return capi::NullArgument("ids");
      if (end > begin) texts[i].assign(ids + begin, ids + end);
    }
    std::vector<float> made;
    auto ok = capi::RunAlone(*model, [&] { return encoder.value()->Embed(texts, &made); });
    if (!ok) return ok.error();
    std::copy(made.begin(), made.end(), vectors);
    return Ok{};
  });
}

fsw_status fsw_embed_texts(fsw_model* model, const char* const* texts, const size_t* bytes,
                           size_t count, float* vectors, size_t vector_floats, size_t* truncated) {
  return capi::Guard([&]() -> VoidResult {
    const auto held = capi::Hold(model);
    auto encoder = Ready(model, count, vectors, vector_floats);
    if (!encoder) return encoder.error();
    if (count > 0 && (texts == nullptr || bytes == nullptr)) {
      return capi::NullArgument("texts or bytes");
    }
    return capi::RunAlone(*model, [&]() -> VoidResult {
      float* out = vectors;
      TextEmbedder embedder(encoder.value(), model->codec.get(), [&](std::span<const float> rows) {
        out = std::copy(rows.begin(), rows.end(), out);
        return VoidResult(Ok{});
      });
      for (size_t i = 0; i < count; ++i) {
        if (texts[i] == nullptr && bytes[i] > 0) return capi::NullArgument("a text");
        auto added = embedder.Add({texts[i], bytes[i]});
        if (!added) {
          return Error{added.error().status,
                       "texts[" + std::to_string(i) + "]: " + added.error().message};
        }
      }
      if (auto ok = embedder.Flush(); !ok) return ok.error();
      if (truncated != nullptr) *truncated = static_cast<size_t>(embedder.totals().truncated);
      return Ok{};
    });
  });
}
