// Added tokens: found in the text before the model, leftmost first and longest among those.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "tokenizer/config.h"
#include "tokenizer/normalizer.h"
#include "tokenizer/pieces.h"
#include "tokenizer/vocab.h"

namespace fretsaw {

// Strings with a value, as a trie of bytes with sorted edges.
class TokenTrie {
 public:
  void Add(std::string_view text, int32_t value);  // the first value for a text stays
  // Value and end of the longest entry that begins at `at`, if any.
  struct Match {
    int32_t value;
    size_t end;
  };
  std::optional<Match> LongestAt(std::string_view text, size_t at) const;
  bool empty() const { return nodes_.size() == 1; }

 private:
  struct Node {
    std::vector<std::pair<unsigned char, uint32_t>> edges;  // sorted
    int32_t value = -1;
  };
  std::vector<Node> nodes_ = std::vector<Node>(1);
  std::vector<uint32_t> roots_ = std::vector<uint32_t>(256, 0);  // edges of node 0
};

class AddedTokens {
 public:
  AddedTokens() = default;
  // Reads the added_tokens list. Ids follow the library: a token of the vocabulary keeps its id,
  // others count on from the vocabulary's size; a file that says otherwise is refused. Throws
  // ConfigFailure.
  AddedTokens(const Config& list, const Vocab& vocab, const Normalizer& normalizer);

  // Splits the input at the tokens that match as written, normalizes the rest, then splits that at
  // the tokens that match in normalized text.
  VoidResult Extract(std::string_view text, const Normalizer& normalizer, Pieces& out) const;

  std::optional<int32_t> Find(std::string_view content) const;
  // What the decoder sees for an id, or nullopt when the id is not an added token.
  std::optional<std::string_view> DecoderText(int32_t id) const;
  // The token as written, or null.
  const std::string* Content(int32_t id) const;
  bool IsSpecial(std::string_view content) const { return special_.contains(std::string(content)); }
  int32_t largest_id() const { return largest_id_; }
  size_t size() const { return tokens_.size(); }

 private:
  struct Token {
    std::string content;
    std::string normalized;  // the form in normalized text
    bool single_word = false, lstrip = false, rstrip = false;
    bool match_normalized = false;
  };
  void Split(const Piece& piece, const TokenTrie& trie, Pieces& out) const;

  std::unordered_map<int32_t, Token> tokens_;
  std::unordered_map<std::string, int32_t> ids_;
  std::unordered_set<std::string> special_;
  TokenTrie exact_, normalized_;
  int32_t largest_id_ = -1;
};

}  // namespace fretsaw
