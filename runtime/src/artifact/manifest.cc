#include "artifact/manifest.h"

#include <algorithm>
#include <limits>
#include <set>

#include "artifact/fields.h"
#include "base/json.h"

namespace fretsaw {
namespace {

constexpr int64_t kMaxId = std::numeric_limits<int32_t>::max();
constexpr int64_t kMaxSize = int64_t{1} << 20;    // tokens of a step, width of an embedding
constexpr int64_t kMaxExtent = int64_t{1} << 40;  // one dimension of a tensor
constexpr size_t kMaxTensors = size_t{1} << 20;
constexpr size_t kMaxRank = 8;

const Section& ReadSection(const Fields& fields, const char* key, const Container& container) {
  const std::string name = fields.String(key, 64);
  const Section* section = container.Find(name);
  if (section == nullptr) fields.Fail(std::string(key) + " names an absent section '" + name + "'");
  return *section;
}

ModelInfo ReadModel(const Fields& fields) {
  ModelInfo model;
  model.family = fields.String("family");
  model.architecture = fields.String("architecture");
  model.kind = fields.String("kind", 64);
  model.context = fields.Int("context", 1, kMaxId);
  model.vocab_size = fields.Int("vocab_size", 1, kMaxId);
  return model;
}

std::optional<int32_t> ReadOptionalId(const Fields& fields, const char* key) {
  if (!fields.Has(key)) return std::nullopt;
  return static_cast<int32_t>(fields.Int(key, 0, kMaxId));
}

GenerationInfo ReadGeneration(const Fields& fields) {
  GenerationInfo generation;
  generation.bos_token_id = ReadOptionalId(fields, "bos_token_id");
  generation.pad_token_id = ReadOptionalId(fields, "pad_token_id");
  for (const int64_t id : fields.Ints("eos_token_ids", 0, kMaxId, 1024)) {
    generation.eos_token_ids.push_back(static_cast<int32_t>(id));
  }
  return generation;
}

TokenizerInfo ReadTokenizer(const Fields& fields, const Container& container) {
  TokenizerInfo tokenizer;
  tokenizer.section = ReadSection(fields, "section", container).name;
  if (fields.Has("chat_template")) {
    tokenizer.chat_template_section = ReadSection(fields, "chat_template", container).name;
  }
  if (fields.Has("bos_token")) tokenizer.bos_token = fields.String("bos_token");
  if (fields.Has("eos_token")) tokenizer.eos_token = fields.String("eos_token");
  return tokenizer;
}

TensorInfo ReadTensor(const Fields& fields, uint64_t section_bytes) {
  TensorInfo tensor;
  tensor.name = fields.String("name");
  tensor.dtype = ReadDType(fields);
  tensor.shape = fields.Ints("shape", 0, kMaxExtent, kMaxRank);
  tensor.offset = static_cast<uint64_t>(fields.Int("offset", 0, INT64_MAX));
  tensor.bytes = static_cast<uint64_t>(fields.Int("bytes", 0, INT64_MAX));
  if (tensor.offset % kAlignment != 0) fields.Fail("offset is not a multiple of 64");
  if (tensor.offset > section_bytes || tensor.bytes > section_bytes - tensor.offset) {
    fields.Fail("'" + tensor.name + "' reaches past the end of the weights section");
  }
  uint64_t expected = static_cast<uint64_t>(DTypeBytes(tensor.dtype));
  for (const int64_t extent : tensor.shape) {
    if (__builtin_mul_overflow(expected, static_cast<uint64_t>(extent), &expected)) {
      fields.Fail("shape of '" + tensor.name + "' overflows");
    }
  }
  if (expected != tensor.bytes) {
    fields.Fail("'" + tensor.name + "' has " + std::to_string(tensor.bytes) +
                " bytes, its shape needs " + std::to_string(expected));
  }
  return tensor;
}

void CheckNoOverlap(const std::vector<TensorInfo>& tensors) {
  std::vector<const TensorInfo*> order;
  order.reserve(tensors.size());
  std::set<std::string_view> names;
  for (const TensorInfo& tensor : tensors) {
    if (!names.insert(tensor.name).second) {
      throw FieldError{"weights.tensors: two tensors are named '" + tensor.name + "'"};
    }
    if (tensor.bytes > 0) order.push_back(&tensor);
  }
  std::sort(order.begin(), order.end(),
            [](const auto* a, const auto* b) { return a->offset < b->offset; });
  for (size_t i = 1; i < order.size(); ++i) {
    if (order[i - 1]->offset + order[i - 1]->bytes > order[i]->offset) {
      throw FieldError{"weights.tensors: '" + order[i - 1]->name + "' and '" + order[i]->name +
                       "' overlap"};
    }
  }
}

EmbeddingInfo ReadEmbedding(const Fields& fields) {
  EmbeddingInfo embedding;
  embedding.width = fields.Int("width", 1, kMaxSize);
  if (fields.Has("pooling")) embedding.pooling = fields.String("pooling", 64);
  embedding.normalize = fields.BoolOr("normalize", false);
  return embedding;
}

DenseSteps ReadDenseSteps(const Fields& fields) {
  DenseSteps dense;
  dense.entry = fields.String("entry", 256);
  dense.until = fields.Int("until", 0, kMaxSize);
  dense.prompts = fields.BoolOr("prompts", false);
  dense.single = fields.BoolOr("single", false);
  return dense;
}

ProgramInfo ReadProgram(const Fields& fields, const Container& container, int64_t page_tokens) {
  ProgramInfo program;
  // Variants that are not native code may do without.
  if (fields.Has("section")) program.section = ReadSection(fields, "section", container).name;
  program.entry = fields.String("entry", 256);
  program.chunk_tokens = fields.Int("chunk_tokens", 1, kMaxSize);
  program.empty_rows = fields.BoolOr("empty_rows", false);
  program.whole_prompts = fields.BoolOr("whole_prompts", false);
  if (fields.Has("dense")) program.dense = ReadDenseSteps(fields.Object("dense"));
  if (fields.Has("chunk_align")) program.chunk_align = fields.Int("chunk_align", 1, kMaxSize);
  if (program.chunk_align != 1 && program.chunk_align != page_tokens) {
    fields.Fail("chunk_align is " + std::to_string(program.chunk_align) + ", not 1 or a page of " +
                std::to_string(page_tokens) + " tokens");
  }
  if (program.chunk_align != 1 && program.chunk_tokens < 2 * program.chunk_align) {
    fields.Fail("chunk_tokens is " + std::to_string(program.chunk_tokens) +
                ", less than two times chunk_align");
  }
  return program;
}

// What sparse attention reads of a block would depend on what has been evicted before it.
void CheckPolicy(const PolicyInfo& policy, const ProgramInfo& program) {
  if (std::holds_alternative<FullPolicy>(policy)) return;
  if (program.chunk_align != 1 || program.whole_prompts || program.dense) {
    throw FieldError{
        "kv.policy: slots are evicted, and the program has chunk_align, whole_prompts or dense"};
  }
}

std::vector<VariantInfo> ReadVariants(const Fields& fields, const Container& container) {
  std::vector<VariantInfo> variants;
  std::set<std::string> names;
  for (const Fields& item : fields.Objects("variants", 64)) {
    VariantInfo variant;
    variant.name = item.String("name", 256);
    variant.section = ReadSection(item, "section", container).name;
    variant.requires_features = item.Strings("requires", 256);
    if (!names.insert(variant.name).second) item.Fail("a second variant '" + variant.name + "'");
    variants.push_back(std::move(variant));
  }
  if (variants.empty()) throw FieldError{"variants: the list is empty"};
  return variants;
}

Manifest Read(const Fields& root, const Container& container) {
  Manifest manifest;
  manifest.format_version = root.Int("format_version", 1, kMaxId);
  manifest.model = ReadModel(root.Object("model"));
  manifest.generation = ReadGeneration(root.Object("generation"));
  if (root.Has("tokenizer"))
    manifest.tokenizer = ReadTokenizer(root.Object("tokenizer"), container);
  const Fields weights = root.Object("weights");
  const Section& section = ReadSection(weights, "section", container);
  manifest.weights_section = section.name;
  for (const Fields& item : weights.Objects("tensors", kMaxTensors)) {
    manifest.tensors.push_back(ReadTensor(item, section.bytes.size()));
  }
  CheckNoOverlap(manifest.tensors);
  if (manifest.model.kind == "encoder") {
    manifest.embedding = ReadEmbedding(root.Object("embedding"));
  } else {
    manifest.kv = ReadKv(root.Object("kv"));
  }
  manifest.program = ReadProgram(root.Object("program"), container, manifest.kv.page_tokens);
  CheckPolicy(manifest.kv.policy, manifest.program);
  manifest.variants = ReadVariants(root, container);
  return manifest;
}

}  // namespace

Result<Manifest> Manifest::Parse(const Container& container) {
  auto json = ParseJson(container.manifest(), "manifest");
  if (!json) return json.error();
  try {
    return Read(Fields(json.value(), ""), container);
  } catch (const FieldError& e) {
    return Error{Status::kCorrupt, "corrupt artifact: manifest: " + e.message};
  } catch (const UnsupportedField& e) {
    return Error{Status::kUnsupported, "unsupported artifact: manifest: " + e.message};
  } catch (const std::bad_alloc&) {
    return Error{Status::kOutOfMemory, "manifest: not enough memory to read it"};
  }
}

}  // namespace fretsaw
