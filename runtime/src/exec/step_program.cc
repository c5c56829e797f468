#include "exec/step_program.h"

#include <utility>
#include <vector>

#include "exec/entry.h"
#include "exec/program_verify.h"
#include "exec/thread_pool.h"

namespace fretsaw {
namespace {

constexpr int64_t kBlock = 64;  // positions of a query block (docs/program.md: QB)

// The arguments that a cache has in a step, in the order in which `SetCache` counts them; its
// planes come after them.
enum CacheIndex : size_t { kCu, kLens, kTable, kPlanes };

std::vector<Entry::CacheArray> CacheArrays(const KvInfo& kv) {
  std::vector<Entry::CacheArray> arrays{
      {"cu", DType::kI32, 1}, {"lens", DType::kI32, 3}, {"table", DType::kI32, 4}};
  for (const PlaneInfo& plane : kv.planes) {
    arrays.push_back({plane.name, plane.dtype, static_cast<int32_t>(plane.shape.size()) + 1});
  }
  return arrays;
}

Surroundings AroundOf(const Manifest& manifest) {
  Surroundings around;
  around.tensors = manifest.tensors.size();
  around.entries = {manifest.program.entry};
  if (manifest.program.dense) around.entries.push_back(manifest.program.dense->entry);
  if (manifest.embedding) {
    around.inputs = {"tokens", "positions", "cu"};
    around.symbols = {"T", "B"};
  } else {
    around.inputs = {"tokens", "positions", "rows"};
    around.symbols = {"T", "B", "R", "QB", "KB"};
    for (const Entry::CacheArray& array : CacheArrays(manifest.kv)) {
      around.cache.push_back(array.name);
    }
  }
  return around;
}

// What entries are bound to. Entries point into it, so it stays where it is.
struct Held {
  Held(ProgramData data, KernelLibrary kernels, std::vector<TensorInfo> tensors,
       std::span<const uint8_t> weights, std::unique_ptr<ThreadPool> threads)
      : program(std::move(data)),
        library(std::move(kernels)),
        infos(std::move(tensors)),
        views(Entry::Weights(infos, weights)),
        pool(std::move(threads)) {}

  ProgramData program;
  KernelLibrary library;
  std::vector<TensorInfo> infos;
  std::vector<KernelTensor> views;
  std::unique_ptr<ThreadPool> pool;
  Workspace workspace;
};

class StepProgram : public Program {
 public:
  StepProgram(std::unique_ptr<Held> held, std::unique_ptr<Entry> step, std::unique_ptr<Entry> dense,
              const Manifest& manifest)
      : held_(std::move(held)),
        step_(std::move(step)),
        dense_(std::move(dense)),
        kv_(manifest.kv),
        vocab_size_(manifest.model.vocab_size) {}

  Result<std::span<const float>> Step(const StepArgs& a) override {
    Entry& entry = a.dense && dense_ ? *dense_ : *step_;
    const int64_t tokens = std::ssize(a.tokens);
    entry.SetSymbol("T", tokens);
    entry.SetSymbol("B", a.batch);
    entry.SetSymbol("R", std::ssize(a.rows));
    entry.SetSymbol("QB", tokens / kBlock + 2 * a.batch);
    entry.SetSymbol("KB", a.max_pages);
    entry.SetInput("tokens", a.tokens.data(), tokens);
    entry.SetInput("positions", a.positions.data(), tokens);
    entry.SetInput("rows", a.rows.data(), std::ssize(a.rows));
    entry.SetCache(kCu, a.cu.data(), {std::ssize(a.cu)});
    entry.SetCache(kLens, a.lens.data(), {a.layers, a.batch, a.kv_heads});
    entry.SetCache(kTable, a.table.data(), {a.layers, a.batch, a.kv_heads, a.max_pages});
    for (size_t i = 0; i < kv_.planes.size(); ++i) {
      entry.SetCache(kPlanes + i, a.planes[i], {a.pages}, kv_.planes[i].shape);
    }
    const KernelThreads threads(held_->pool.get());
    return entry.Run(&held_->workspace, std::ssize(a.rows), vocab_size_, "logits");
  }

 private:
  std::unique_ptr<Held> held_;
  std::unique_ptr<Entry> step_, dense_;
  KvInfo kv_;
  int64_t vocab_size_;
};

class StepEncoder : public EncodeProgram {
 public:
  StepEncoder(std::unique_ptr<Held> held, std::unique_ptr<Entry> encode, int64_t width)
      : held_(std::move(held)), encode_(std::move(encode)), width_(width) {}

  Result<std::span<const float>> Encode(const EncodeArgs& a) override {
    const int64_t tokens = std::ssize(a.tokens), batch = std::ssize(a.cu) - 1;
    encode_->SetSymbol("T", tokens);
    encode_->SetSymbol("B", batch);
    encode_->SetInput("tokens", a.tokens.data(), tokens);
    encode_->SetInput("positions", a.positions.data(), tokens);
    encode_->SetInput("cu", a.cu.data(), std::ssize(a.cu));
    const KernelThreads threads(held_->pool.get());
    return encode_->Run(&held_->workspace, batch, width_, "embeddings");
  }

 private:
  std::unique_ptr<Held> held_;
  std::unique_ptr<Entry> encode_;
  int64_t width_;
};

}  // namespace

Result<StepCode> StepCode::Load(std::string_view program, std::span<const uint8_t> code,
                                const Manifest& manifest) {
  auto data = ParseProgram(program);
  if (!data) return data.error();
  if (auto ok = VerifyProgram(data.value(), AroundOf(manifest)); !ok) return ok.error();
  auto library = KernelLibrary::Open(code);
  if (!library) return library.error();
  return StepCode(std::move(data).value(), std::move(library).value());
}

Result<std::unique_ptr<Program>> StepCode::Bind(const Manifest& manifest,
                                                std::span<const uint8_t> weights, int threads) && {
  auto pool = ThreadPool::Create(threads);
  if (!pool) return pool.error();
  auto held = std::make_unique<Held>(std::move(data_), std::move(library_), manifest.tensors,
                                     weights, std::move(pool).value());
  const std::vector<Entry::CacheArray> cache = CacheArrays(manifest.kv);
  const auto bind = [&](const std::string& name) {
    return Entry::Create(*held->program.Find(name), held->library, held->views, cache);
  };
  auto step = bind(manifest.program.entry);
  if (!step) return step.error();
  std::unique_ptr<Entry> dense;
  if (manifest.program.dense) {
    auto bound = bind(manifest.program.dense->entry);
    if (!bound) return bound.error();
    dense = std::move(bound).value();
  }
  return std::unique_ptr<Program>(std::make_unique<StepProgram>(
      std::move(held), std::move(step).value(), std::move(dense), manifest));
}

Result<std::unique_ptr<EncodeProgram>> StepCode::BindEncoder(const Manifest& manifest,
                                                             std::span<const uint8_t> weights,
                                                             int threads) && {
  auto pool = ThreadPool::Create(threads);
  if (!pool) return pool.error();
  auto held = std::make_unique<Held>(std::move(data_), std::move(library_), manifest.tensors,
                                     weights, std::move(pool).value());
  auto encode =
      Entry::Create(*held->program.Find(manifest.program.entry), held->library, held->views, {});
  if (!encode) return encode.error();
  return std::unique_ptr<EncodeProgram>(std::make_unique<StepEncoder>(
      std::move(held), std::move(encode).value(), manifest.embedding->width));
}

}  // namespace fretsaw
