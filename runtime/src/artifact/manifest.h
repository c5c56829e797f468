// The manifest of an artifact as typed values. Every number is bounded and every reference into a
// section is proved to lie inside it, so users of a Manifest need no checks of their own.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "artifact/container.h"
#include "artifact/dtype.h"
#include "artifact/kv_info.h"
#include "base/result.h"

namespace fretsaw {

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
