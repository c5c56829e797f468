// Turns batch entries into the arguments of one step of the program, and commits what it appended.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "artifact/manifest.h"
#include "base/result.h"
#include "model/chunks.h"
#include "model/kv_cache.h"
#include "model/program.h"

namespace fretsaw {

enum class LogitRows : uint8_t { kNone, kLast, kAll };

struct BatchEntry {
  Sequence* sequence = nullptr;  // of the cache given to Step, at most once in a batch
  std::span<const int32_t> tokens;
  LogitRows rows = LogitRows::kLast;
};

// Not thread-safe. Step allocates nothing of its own after Prepare.
class Stepper {
 public:
  Stepper(const KvInfo& kv, const ProgramInfo& program, int64_t vocab_size,
          std::unique_ptr<Program> code);

  // Sizes the buffers for batches over `cache`.
  void Prepare(const KvCache& cache);

  // Appends the tokens of every entry to its sequence and returns the wanted logits, [R, V], entry
  // after entry, valid until the next step. On an error no sequence has grown.
  // Errors: kBadInput (empty entry, token id out of range), kUsage (more tokens than a step takes,
  // more entries than the cache has sequences), those of Sequence::Reserve and Program::Step.
  Result<std::span<const float>> Step(const KvCache& cache, std::span<const BatchEntry> batch);

  int64_t chunk_tokens() const { return info_.chunk_tokens; }
  ChunkRule chunk_rule() const { return {info_.chunk_align, info_.whole_prompts}; }
  int64_t vocab_size() const { return vocab_size_; }

 private:
  VoidResult Check(const KvCache& cache, std::span<const BatchEntry> batch) const;
  bool IsDense(std::span<const BatchEntry> batch) const;
  void FillTokens(std::span<const BatchEntry> batch);
  void FillTable(std::span<const BatchEntry> batch, int64_t max_pages);

  KvInfo kv_;
  ProgramInfo info_;
  int64_t vocab_size_;
  std::unique_ptr<Program> code_;
  std::vector<int32_t> tokens_, positions_, cu_, rows_, lens_, table_;
};

}  // namespace fretsaw
