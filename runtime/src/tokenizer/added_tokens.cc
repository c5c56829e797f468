#include "tokenizer/added_tokens.h"

#include <algorithm>

#include "tokenizer/unicode.h"
#include "tokenizer/utf8.h"

namespace fretsaw {
namespace {

constexpr size_t kMaxAdded = 1u << 17;
constexpr size_t kMaxTrieBytes = 1u << 22;  // total content bytes

bool EndsWithWord(std::string_view text) {
  size_t end = text.size();
  return unicode::IsRustWord(utf8::Previous(text, end));
}

bool StartsWithWord(std::string_view text) {
  size_t at = 0;
  return unicode::IsRustWord(utf8::Next(text, at));
}

size_t SpacesBefore(std::string_view text, size_t end) {
  while (end > 0) {
    size_t previous = end;
    if (!unicode::IsWhiteSpace(utf8::Previous(text, previous))) break;
    end = previous;
  }
  return end;
}

size_t SpacesAfter(std::string_view text, size_t at) {
  while (at < text.size()) {
    size_t next = at;
    if (!unicode::IsWhiteSpace(utf8::Next(text, next))) break;
    at = next;
  }
  return at;
}

}  // namespace

void TokenTrie::Add(std::string_view text, int32_t value) {
  uint32_t node = 0;
  for (const char ch : text) {
    const auto b = static_cast<unsigned char>(ch);
    auto& edges = nodes_[node].edges;
    auto it = std::ranges::lower_bound(edges, b, {}, [](const auto& e) { return e.first; });
    if (it == edges.end() || it->first != b) {
      const auto fresh = static_cast<uint32_t>(nodes_.size());
      edges.insert(it, {b, fresh});
      if (node == 0) roots_[b] = fresh;
      nodes_.emplace_back();  // invalidates `edges`
      node = fresh;
    } else {
      node = it->second;
    }
  }
  if (node != 0 && nodes_[node].value < 0) nodes_[node].value = value;
}

std::optional<TokenTrie::Match> TokenTrie::LongestAt(std::string_view text, size_t at) const {
  std::optional<Match> best;
  uint32_t node = roots_[static_cast<unsigned char>(text[at])];
  while (node != 0) {
    ++at;
    if (nodes_[node].value >= 0) best = Match{nodes_[node].value, at};
    if (at == text.size()) break;
    const auto b = static_cast<unsigned char>(text[at]);
    const auto& edges = nodes_[node].edges;
    const auto it = std::ranges::lower_bound(edges, b, {}, [](const auto& e) { return e.first; });
    if (it == edges.end() || it->first != b) break;
    node = it->second;
  }
  return best;
}

AddedTokens::AddedTokens(const Config& list, const Vocab& vocab, const Normalizer& normalizer) {
  if (list.IsNull()) return;
  if (list.Size() > kMaxAdded) {
    list.Corrupt(std::to_string(list.Size()) + " entries, at most " + std::to_string(kMaxAdded));
  }
  auto next_id = static_cast<int32_t>(vocab.size());
  size_t bytes = 0;
  for (size_t i = 0; i < list.Size(); ++i) {
    const Config entry = list.At(i);
    Token token{.content = entry.Text("content"), .normalized = {}};
    const auto declared = static_cast<int32_t>(entry.At("id").Int(0, Vocab::kMaxId));
    if (token.content.empty()) continue;  // the library skips these
    const auto known = ids_.find(token.content);
    if (known != ids_.end()) entry.Corrupt("'" + token.content.substr(0, 60) + "' appears twice");
    const int32_t id = vocab.Find(token.content).value_or(next_id);
    if (id == next_id && !vocab.Find(token.content)) ++next_id;
    if (id != declared) {
      entry.At("id").Corrupt("'" + token.content.substr(0, 60) + "' says " +
                             std::to_string(declared) + ", but its id in the vocabulary is " +
                             std::to_string(id));
    }
    token.single_word = entry.Flag("single_word");
    token.lstrip = entry.Flag("lstrip");
    token.rstrip = entry.Flag("rstrip");
    token.match_normalized = entry.Flag("normalized");
    token.normalized = token.content;
    if (token.match_normalized) {
      Piece piece{token.content, -1, true};
      Need(normalizer.Apply(piece), entry);
      token.normalized = std::move(piece.text);
    }
    bytes += token.content.size() + token.normalized.size();
    if (bytes > kMaxTrieBytes) list.Corrupt("more than 4 MiB of text");
    if (entry.Flag("special")) special_.insert(token.content);
    (token.match_normalized ? normalized_ : exact_).Add(token.normalized, id);
    largest_id_ = std::max(largest_id_, id);
    ids_.emplace(token.content, id);
    tokens_.emplace(id, std::move(token));
  }
}

void AddedTokens::Split(const Piece& piece, const TokenTrie& trie, Pieces& out) const {
  const std::string_view text = piece.text;
  const auto add = [&](size_t begin, size_t end, int32_t token) {
    if (begin < end) {
      out.push_back({piece.text.substr(begin, end - begin), token, piece.at_start && begin == 0});
    }
  };
  size_t covered = 0;
  for (size_t at = 0; at < text.size() && !trie.empty();) {
    const auto match = trie.LongestAt(text, at);
    if (!match) {
      ++at;
      continue;
    }
    size_t begin = at, end = match->end;
    at = end;  // a match that is turned down below still uses up its text
    const Token& token = tokens_.at(match->value);
    if (token.single_word && ((begin > 0 && EndsWithWord(text.substr(0, begin))) ||
                              (end < text.size() && StartsWithWord(text.substr(end))))) {
      continue;
    }
    if (token.lstrip) begin = std::max(SpacesBefore(text, begin), covered);
    if (token.rstrip) end = SpacesAfter(text, end);
    if (covered < begin) add(covered, begin, -1);
    add(begin, end, match->value);
    covered = end;
  }
  if (covered < text.size()) add(covered, text.size(), -1);
}

VoidResult AddedTokens::Extract(std::string_view text, const Normalizer& normalizer,
                                Pieces& out) const {
  Pieces exact;
  Split({std::string(text), -1, true}, exact_, exact);
  for (Piece& piece : exact) {
    if (piece.token >= 0) {
      out.push_back(std::move(piece));
      continue;
    }
    if (auto done = normalizer.Apply(piece); !done) return done.error();
    Split(piece, normalized_, out);
  }
  return Ok{};
}

std::optional<int32_t> AddedTokens::Find(std::string_view content) const {
  const auto it = ids_.find(std::string(content));
  if (it == ids_.end()) return std::nullopt;
  return it->second;
}

const std::string* AddedTokens::Content(int32_t id) const {
  const auto it = tokens_.find(id);
  return it == tokens_.end() ? nullptr : &it->second.content;
}

std::optional<std::string_view> AddedTokens::DecoderText(int32_t id) const {
  const auto it = tokens_.find(id);
  if (it == tokens_.end()) return std::nullopt;
  return it->second.normalized;
}

}  // namespace fretsaw
