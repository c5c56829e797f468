// The manifest of an artifact as typed values. Every number is bounded and every reference into a
// section is proved to lie inside it, so users of a Manifest need no checks of their own.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "artifact/container.h"
#include "base/result.h"

namespace fretsaw {

enum class DType : uint8_t { kF32, kF16, kBF16, kI32, kI64 };

int64_t DTypeBytes(DType dtype);

struct TensorInfo {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  uint64_t offset = 0;  // bytes, within the weights section, a multiple of 64
  uint64_t bytes = 0;   // product of the shape times the element size
};

struct VariantInfo {
  std::string name;     // e.g. "llvm-x86-64-v3"
  std::string section;  // e.g. "code/llvm-x86-64-v3"
  std::vector<std::string> requires_features;
};

struct ModelInfo {
  std::string family, architecture, kind;
  int64_t context = 0;  // tokens
  int64_t vocab_size = 0;
};

struct GenerationInfo {
  std::optional<int32_t> bos_token_id, pad_token_id;
  std::vector<int32_t> eos_token_ids;
};

struct TokenizerInfo {
  std::string section;
  std::string chat_template_section;  // empty when the checkpoint has no chat template
  std::string bos_token, eos_token;   // empty when it has none
};

// How keys and values are stored. kInt8 is a byte a number and a f32 scale for each token.
enum class KvStorage : uint8_t { kF32, kF16, kInt8 };

struct KvInfo {
  int64_t layers = 0, kv_heads = 0;
  int64_t key_size = 0, value_size = 0;  // elements per token and head
  int64_t page_tokens = 0;
  KvStorage storage = KvStorage::kF32;
  bool key_bounds = false;  // least and greatest keys stand beside every page

  int64_t KeyPageBytes() const { return page_tokens * RowBytes(key_size); }
  int64_t ValuePageBytes() const { return page_tokens * RowBytes(value_size); }
  int64_t KeyBoundBytes() const { return key_bounds ? 2 * key_size * 4 : 0; }  // f32 [2 * key_size]
  // Of a page of keys, its page of values, and what stands beside them but positions.
  int64_t PagePairBytes() const { return KeyPageBytes() + ValuePageBytes() + KeyBoundBytes(); }

 private:
  int64_t RowBytes(int64_t size) const {
    switch (storage) {
      case KvStorage::kF32:
        return size * 4;
      case KvStorage::kF16:
        return size * 2;
      case KvStorage::kInt8:
        return size + 4;
    }
    return 0;
  }
};

// What an encoder gives for a text.
struct EmbeddingInfo {
  int64_t width = 0;    // numbers per text, or per token without a pooling
  std::string pooling;  // empty: hidden states of every token
  bool normalize = false;
};

// Steps in which sparse attention leaves nothing out, and the entry of the program that runs them
// without choosing blocks. A step is such a one if each of its sequences fits one of these.
struct DenseSteps {
  std::string entry;
  int64_t until = 0;     // sequences that end at this position or before
  bool prompts = false;  // those with more than one token in the step
  bool single = false;   // those with one
};

struct ProgramInfo {
  std::string entry;
  int64_t chunk_tokens = 0;    // most tokens in one step
  bool empty_rows = false;     // the program takes R = 0: a step that wants no logits at all
  int64_t chunk_align = 1;     // a prompt is cut at multiples of it only; 1 or kv.page_tokens
  bool whole_prompts = false;  // a prompt is not cut at all
  std::optional<DenseSteps> dense = std::nullopt;
  std::string section = {};  // e.g. "program"
};

struct Manifest {
  int64_t format_version = 0;
  ModelInfo model;
  GenerationInfo generation;
  std::optional<TokenizerInfo> tokenizer;
  std::string weights_section;
  std::vector<TensorInfo> tensors;
  KvInfo kv;                               // all zero in an encoder
  std::optional<EmbeddingInfo> embedding;  // in an encoder, and only there
  ProgramInfo program;
  std::vector<VariantInfo> variants;  // best first

  // Errors: kCorrupt (missing, out of bounds, inconsistent), kUnsupported (unknown dtype or kind).
  static Result<Manifest> Parse(const Container& container);
};

}  // namespace fretsaw
