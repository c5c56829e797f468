#include "model/stepper.h"

#include <algorithm>
#include <string>
#include <utility>

namespace fretsaw {

Stepper::Stepper(const KvInfo& kv, const ProgramInfo& program, int64_t vocab_size,
                 std::unique_ptr<Program> code)
    : kv_(kv), info_(program), vocab_size_(vocab_size), code_(std::move(code)) {
  const auto chunk = static_cast<size_t>(info_.chunk_tokens);
  tokens_.reserve(chunk);
  positions_.reserve(chunk);
  rows_.reserve(chunk);
}

void Stepper::Prepare(const KvCache& cache) {
  const auto rows = static_cast<size_t>(cache.rows() * cache.sequences());
  cu_.reserve(static_cast<size_t>(cache.sequences()) + 1);
  lens_.reserve(rows);
  table_.reserve(rows * static_cast<size_t>(cache.pages_per_row()));
}

VoidResult Stepper::Check(const KvCache& cache, std::span<const BatchEntry> batch) const {
  if (batch.empty() || std::ssize(batch) > cache.sequences()) {
    return Error{Status::kUsage, "a step of " + std::to_string(batch.size()) +
                                     " sequences over a cache for " +
                                     std::to_string(cache.sequences())};
  }
  int64_t total = 0;
  for (const BatchEntry& entry : batch) {
    if (entry.tokens.empty()) return Error{Status::kBadInput, "a step needs at least one token"};
    total += std::ssize(entry.tokens);
    for (const int32_t token : entry.tokens) {
      if (token < 0 || token >= vocab_size_) {
        return Error{Status::kBadInput, "token id " + std::to_string(token) +
                                            " is outside the vocabulary of " +
                                            std::to_string(vocab_size_)};
      }
    }
  }
  if (total > info_.chunk_tokens) {
    return Error{Status::kUsage, std::to_string(total) + " tokens in one step, at most " +
                                     std::to_string(info_.chunk_tokens)};
  }
  return Ok{};
}

// Sparse attention would read everything in this step: every sequence is short, or of a kind that
// the program leaves dense.
bool Stepper::IsDense(std::span<const BatchEntry> batch) const {
  if (!info_.dense) return false;
  const DenseSteps& rule = *info_.dense;
  return std::ranges::all_of(batch, [&rule](const BatchEntry& entry) {
    const int64_t count = std::ssize(entry.tokens);
    return (count == 1 ? rule.single : rule.prompts) ||
           entry.sequence->num_computed_tokens() + count <= rule.until;
  });
}

void Stepper::FillTokens(std::span<const BatchEntry> batch) {
  tokens_.clear();
  positions_.clear();
  rows_.clear();
  cu_.assign(1, 0);
  for (const BatchEntry& entry : batch) {
    const auto first = static_cast<int32_t>(tokens_.size());
    const auto count = static_cast<int32_t>(entry.tokens.size());
    const auto position = static_cast<int32_t>(entry.sequence->num_computed_tokens());
    tokens_.insert(tokens_.end(), entry.tokens.begin(), entry.tokens.end());
    for (int32_t i = 0; i < count; ++i) positions_.push_back(position + i);
    cu_.push_back(first + count);
    if (entry.rows == LogitRows::kNone) continue;
    const int32_t from = entry.rows == LogitRows::kAll ? 0 : count - 1;
    for (int32_t i = from; i < count; ++i) rows_.push_back(first + i);
  }
}

void Stepper::FillTable(std::span<const BatchEntry> batch, int64_t max_pages) {
  lens_.clear();
  table_.clear();
  for (int64_t layer = 0; layer < kv_.layers; ++layer) {
    for (const BatchEntry& entry : batch) {
      for (int64_t head = 0; head < kv_.kv_heads; ++head) {
        const int64_t row = layer * kv_.kv_heads + head;
        lens_.push_back(entry.sequence->lens()[static_cast<size_t>(row)]);
        const auto pages = entry.sequence->row(row);
        table_.insert(table_.end(), pages.begin(), pages.end());
        // Unused entries name page 0: a valid page, so that even a wrong read stays in bounds.
        table_.insert(table_.end(), static_cast<size_t>(max_pages - std::ssize(pages)), 0);
      }
    }
  }
}

Result<std::span<const float>> Stepper::Step(const KvCache& cache,
                                             std::span<const BatchEntry> batch) {
  if (auto ok = Check(cache, batch); !ok) return ok.error();
  int64_t max_pages = 0;
  for (const BatchEntry& entry : batch) {
    if (auto ok = entry.sequence->Reserve(std::ssize(entry.tokens)); !ok) return ok.error();
    max_pages = std::max(max_pages, entry.sequence->longest_row());
  }
  FillTokens(batch);
  FillTable(batch, max_pages);
  const bool unwanted_row = rows_.empty() && !info_.empty_rows;
  if (unwanted_row) rows_.push_back(0);

  StepArgs args;
  args.tokens = tokens_;
  args.positions = positions_;
  args.cu = cu_;
  args.rows = rows_;
  args.lens = lens_;
  args.table = table_;
  args.layers = kv_.layers;
  args.batch = std::ssize(batch);
  args.kv_heads = kv_.kv_heads;
  args.max_pages = max_pages;
  args.planes = cache.planes();
  args.pages = cache.pages();
  args.dense = IsDense(batch);
  auto logits = code_->Step(args);
  if (!logits) return logits.error();
  for (const BatchEntry& entry : batch) entry.sequence->Commit(std::ssize(entry.tokens));
  if (unwanted_row) return std::span<const float>();
  return logits;
}

}  // namespace fretsaw
