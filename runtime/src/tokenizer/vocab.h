// Vocabulary: token text to id and back, in two flat tables over one block of text.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

namespace fretsaw {

class Vocab {
 public:
  static constexpr int64_t kMaxId = (1 << 24) - 1;

  // Fails on an id out of range, a token or an id that appears twice.
  static Result<Vocab> Build(const std::vector<std::pair<std::string, int64_t>>& entries);

  std::optional<int32_t> Find(std::string_view token) const;
  // Text of an id, or nullopt for an id without a token.
  std::optional<std::string_view> Token(int32_t id) const;
  size_t size() const { return count_; }  // entries, not the largest id
  int32_t largest_id() const { return static_cast<int32_t>(by_id_.size()) - 1; }

 private:
  struct Place {
    uint32_t offset = 0;
    uint32_t length = kNone;
  };
  static constexpr uint32_t kNone = UINT32_MAX;

  std::string_view View(const Place& p) const { return {text_.data() + p.offset, p.length}; }

  std::string text_;
  std::vector<Place> by_id_;
  std::vector<int32_t> slots_;  // open addressing, power of two, -1 empty
  size_t count_ = 0;
};

}  // namespace fretsaw
