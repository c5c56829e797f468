#include "tokenizer/vocab.h"

#include <bit>
#include <functional>

namespace fretsaw {
namespace {

std::string Quoted(std::string_view token) { return "'" + std::string(token.substr(0, 60)) + "'"; }

Error Bad(const std::string& message) {
  return {Status::kCorrupt, "tokenizer.json: model.vocab: " + message};
}

}  // namespace

Result<Vocab> Vocab::Build(const std::vector<std::pair<std::string, int64_t>>& entries) {
  Vocab v;
  int64_t largest = -1;
  size_t bytes = 0;
  for (const auto& [token, id] : entries) {
    if (id < 0 || id > kMaxId) {
      return Bad(Quoted(token) + " has id " + std::to_string(id) + ", outside 0.." +
                 std::to_string(kMaxId));
    }
    largest = std::max(largest, id);
    bytes += token.size();
  }
  if (bytes >= kNone) return Bad("more than 4 GiB of text");
  v.text_.reserve(bytes);
  v.by_id_.resize(static_cast<size_t>(largest + 1));
  v.slots_.assign(std::bit_ceil(entries.size() * 2 + 1), -1);
  const size_t mask = v.slots_.size() - 1;
  for (const auto& [token, id] : entries) {
    Place& place = v.by_id_[static_cast<size_t>(id)];
    if (place.length != kNone) {
      return Bad("id " + std::to_string(id) + " appears twice, for " + Quoted(v.View(place)) +
                 " and " + Quoted(token));
    }
    place = {static_cast<uint32_t>(v.text_.size()), static_cast<uint32_t>(token.size())};
    v.text_ += token;
    size_t slot = std::hash<std::string_view>{}(token)&mask;
    while (v.slots_[slot] >= 0) {
      if (v.View(v.by_id_[static_cast<size_t>(v.slots_[slot])]) == token) {
        return Bad("token " + Quoted(token) + " appears twice");
      }
      slot = (slot + 1) & mask;
    }
    v.slots_[slot] = static_cast<int32_t>(id);
  }
  v.count_ = entries.size();
  return v;
}

std::optional<int32_t> Vocab::Find(std::string_view token) const {
  const size_t mask = slots_.size() - 1;
  for (size_t slot = std::hash<std::string_view>{}(token)&mask; slots_[slot] >= 0;
       slot = (slot + 1) & mask) {
    if (View(by_id_[static_cast<size_t>(slots_[slot])]) == token) return slots_[slot];
  }
  return std::nullopt;
}

std::optional<std::string_view> Vocab::Token(int32_t id) const {
  if (id < 0 || static_cast<size_t>(id) >= by_id_.size()) return std::nullopt;
  const Place& place = by_id_[static_cast<size_t>(id)];
  if (place.length == kNone) return std::nullopt;
  return View(place);
}

}  // namespace fretsaw
