// A program in closed form that keeps its tokens in the pages of the cache, in every row, and reads
// them back: the next token is a hash of all tokens so far. A wrong page, length, position or order
// changes the tokens that come out. With blocks it does as sparse attention does: what it keeps of
// a token depends on all tokens of its block that are in the step, unless the token is alone in it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "artifact/manifest.h"
#include "model/generation.h"
#include "model/plane_case.h"
#include "model/program.h"
#include "model/stepper.h"

namespace fretsaw::testing {

inline constexpr int64_t kVocab = 97;
inline constexpr int32_t kEos = 96;
inline constexpr int64_t kPage = 4;

inline KvInfo FakeKv() { return PlainKv(2, 2, 1, 1, kPage); }

inline uint64_t Mix(uint64_t state, int32_t token, int64_t position) {
  state ^= static_cast<uint64_t>(token) * 0x9e3779b97f4a7c15u + static_cast<uint64_t>(position);
  state *= 0xff51afd7ed558ccdu;
  return state ^ (state >> 31);
}

inline void FakeLogits(uint64_t state, std::span<float> row) {
  for (size_t v = 0; v < row.size(); ++v) {
    row[v] = static_cast<float>(Mix(state, static_cast<int32_t>(v), 0) >> 40) * 0x1p-22f;
  }
}

// What a token is marked with that is read together with `block`, itself among them.
inline int64_t Mark(std::span<const int32_t> block) {
  uint64_t state = 2;
  for (const int32_t token : block) state = Mix(state, token, 0);
  return 4096 * static_cast<int64_t>(1 + state % 2047);  // exact in f32, with a position below 4096
}

class FakeProgram : public Program {
 public:
  Result<std::span<const float>> Step(const StepArgs& a) override {
    ++steps;
    last_tokens = std::ssize(a.tokens);
    last_batch = a.batch;
    if (on_step) on_step();
    if (on_args) on_args(a);
    if (fail) return Error{Status::kInternal, "made to fail"};
    logits_.assign(a.rows.size() * static_cast<size_t>(kVocab), 0);
    const int64_t rows = a.layers * a.kv_heads;
    for (int64_t b = 0; b < a.batch; ++b) {
      const int32_t begin = a.cu[static_cast<size_t>(b)], end = a.cu[static_cast<size_t>(b) + 1];
      for (int64_t row = 0; row < rows; ++row) {
        for (int32_t t = begin; t < end; ++t) {
          *At(a, a.planes[0], b, row, Len(a, b, row) + t - begin) =
              static_cast<float>(a.tokens[static_cast<size_t>(t)] + 128 * row);
          *At(a, a.planes[1], b, row, Len(a, b, row) + t - begin) = static_cast<float>(
              a.positions[static_cast<size_t>(t)] + MarkAt(a, begin, end, t, Len(a, b, row)));
        }
      }
      for (size_t r = 0; r < a.rows.size(); ++r) {
        if (a.rows[r] < begin || a.rows[r] >= end) continue;
        uint64_t state = 1;
        for (int64_t row = 0; row < rows; ++row) {
          for (int64_t i = 0; i < Len(a, b, row) + a.rows[r] - begin + 1; ++i) {
            state = Mix(state, static_cast<int32_t>(*At(a, a.planes[0], b, row, i) - 128 * row),
                        static_cast<int64_t>(*At(a, a.planes[1], b, row, i)));
          }
        }
        FakeLogits(state, std::span(logits_).subspan(r * kVocab, kVocab));
      }
    }
    return std::span<const float>(logits_);
  }

  std::function<void()> on_step;
  std::function<void(const StepArgs&)> on_args;
  bool fail = false;
  int64_t block = 0;  // tokens; 0: no blocks
  int64_t steps = 0, last_tokens = 0, last_batch = 0;

 private:
  // Of token t of a sequence that has the rows begin to end, and `before` tokens in the cache.
  int64_t MarkAt(const StepArgs& a, int32_t begin, int32_t end, int32_t t, int64_t before) const {
    if (block == 0 || end - begin == 1) return 0;
    const int64_t first = (before + t - begin) / block * block - before + begin;
    const int64_t from = std::max<int64_t>(begin, first),
                  to = std::min<int64_t>(end, first + block);
    return Mark(a.tokens.subspan(static_cast<size_t>(from), static_cast<size_t>(to - from)));
  }
  static int64_t Len(const StepArgs& a, int64_t b, int64_t row) {
    const int64_t layer = row / a.kv_heads, head = row % a.kv_heads;
    return a.lens[static_cast<size_t>((layer * a.batch + b) * a.kv_heads + head)];
  }
  static float* At(const StepArgs& a, void* pages, int64_t b, int64_t row, int64_t token) {
    const int64_t layer = row / a.kv_heads, head = row % a.kv_heads;
    const int64_t of_row = ((layer * a.batch + b) * a.kv_heads + head) * a.max_pages;
    const int32_t page = a.table[static_cast<size_t>(of_row + token / kPage)];
    return static_cast<float*>(pages) + page * kPage + token % kPage;
  }

  std::vector<float> logits_;
};

// Greedy continuation without any cache: what must come out.
inline std::vector<int32_t> Oracle(std::vector<int32_t> tokens, int64_t count, int64_t context,
                                   int64_t block = 0) {
  std::vector<int32_t> out;
  std::vector<float> row(kVocab);
  std::vector<int64_t> values(tokens.size());  // of the prompt, as if it were read in one step
  const int64_t prompt = std::ssize(tokens);
  for (int64_t i = 0; i < prompt; ++i) {
    values[static_cast<size_t>(i)] = i;
    if (block == 0 || prompt == 1) continue;
    const int64_t from = i / block * block, to = std::min(prompt, from + block);
    values[static_cast<size_t>(i)] +=
        Mark(std::span(tokens).subspan(static_cast<size_t>(from), static_cast<size_t>(to - from)));
  }
  while (std::ssize(out) < count && std::ssize(tokens) <= context) {
    uint64_t state = 1;
    for (int64_t r = 0; r < 4; ++r) {
      for (size_t i = 0; i < tokens.size(); ++i) state = Mix(state, tokens[i], values[i]);
    }
    FakeLogits(state, row);
    out.push_back(static_cast<int32_t>(std::max_element(row.begin(), row.end()) - row.begin()));
    values.push_back(std::ssize(tokens));
    tokens.push_back(out.back());
    if (out.back() == kEos) break;
  }
  return out;
}

struct FakeModel {
  explicit FakeModel(int64_t chunk = 16, ChunkRule rule = {})
      : program(new FakeProgram),
        stepper(FakeKv(), {"step", chunk, true, rule.align, rule.whole}, kVocab,
                std::unique_ptr<Program>(program)) {
    if (rule.align > 1) program->block = rule.align;
    if (rule.whole) program->block = 4096;  // more than any prompt
  }

  GenerationRules rules() const { return {kVocab, {&kEos, 1}, nullptr}; }

  FakeProgram* program;
  Stepper stepper;
};

}  // namespace fretsaw::testing
