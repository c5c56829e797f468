#include "tokenizer/json_source.h"

namespace fretsaw {
namespace {

using nlohmann::json;

// Builds the DOM with its own stack: no recursion, so depth is only a number to compare.
class Reader : public nlohmann::json_sax<json> {
 public:
  Reader(TokenizerSource& source, const TokenizerLimits& limits) : out_(source), limits_(limits) {}

  Error error{Status::kCorrupt, ""};

  bool null() override { return Value(json()); }
  bool boolean(bool v) override { return Value(json(v)); }
  bool number_integer(number_integer_t v) override { return Number(v); }
  bool number_unsigned(number_unsigned_t v) override {
    return v > INT64_MAX ? Fail("number " + std::to_string(v) + " is too large")
                         : Number(static_cast<int64_t>(v));
  }
  bool number_float(number_float_t v, const string_t&) override {
    return zone_ == kDom ? Value(json(v)) : Fail(Where() + ": expected a whole number or text");
  }
  bool binary(binary_t&) override { return Fail("binary value"); }

  bool string(string_t& v) override {
    if (zone_ == kVocab) return Fail(Where() + ": expected an id, got text");
    if (zone_ == kMerges) return LegacyMerge(v);
    if (zone_ == kPair) return PairPart(v);
    return Value(json(std::move(v)));
  }

  bool key(string_t& v) override {
    if (zone_ == kVocab && v.size() > limits_.max_token_bytes) {
      return Fail("model.vocab: an entry has " + std::to_string(v.size()) + " bytes, at most " +
                  std::to_string(limits_.max_token_bytes));
    }
    key_ = std::move(v);
    return true;
  }

  bool start_object(std::size_t) override {
    if (InModel() && key_ == "vocab") {
      if (out_.has_vocab) return Fail("model.vocab appears twice");
      out_.has_vocab = true;
      zone_ = kVocab;
      return true;
    }
    return Open(json::object());
  }
  bool end_object() override {
    if (zone_ == kVocab) {
      zone_ = kDom;
      return true;
    }
    stack_.pop_back();
    return true;
  }
  bool start_array(std::size_t) override {
    if (zone_ == kMerges) {
      zone_ = kPair;
      parts_ = 0;
      return true;
    }
    if (InModel() && key_ == "merges") {
      if (out_.has_merges) return Fail("model.merges appears twice");
      out_.has_merges = true;
      zone_ = kMerges;
      return true;
    }
    return Open(json::array());
  }
  bool end_array() override {
    if (zone_ == kPair) {
      if (parts_ != 2)
        return Fail(Where() + ": a merge needs two parts, got " + std::to_string(parts_));
      zone_ = kMerges;
      return true;
    }
    if (zone_ == kMerges) {
      zone_ = kDom;
      return true;
    }
    stack_.pop_back();
    return true;
  }
  bool parse_error(std::size_t position, const std::string&, const json::exception& e) override {
    // nlohmann's text carries the byte offset and what it expected; cut its "[json.exception...]"
    // tag.
    std::string text = e.what();
    if (const size_t tag = text.find("] "); tag != std::string::npos) text.erase(0, tag + 2);
    return Fail("not valid JSON near byte " + std::to_string(position) + ": " + text);
  }

 private:
  enum Zone { kDom, kVocab, kMerges, kPair };

  bool InModel() const { return zone_ == kDom && stack_.size() == 2 && root_key_ == "model"; }

  std::string Where() const {
    if (zone_ == kVocab) return "model.vocab";
    const size_t open =
        zone_ == kPair && parts_ > 0 ? 1 : 0;  // the pair being read is already counted
    return "model.merges[" + std::to_string(out_.merges.size() - open) + "]";
  }

  bool Fail(std::string message) {
    if (error.message.empty()) error.message = "tokenizer.json: " + std::move(message);
    return false;
  }

  bool Number(int64_t v) {
    if (zone_ == kVocab) {
      if (out_.vocab.size() >= limits_.max_vocab) {
        return Fail("model.vocab has more than " + std::to_string(limits_.max_vocab) + " entries");
      }
      out_.vocab.emplace_back(std::move(key_), v);
      return true;
    }
    return Value(json(v));
  }

  bool CountMerge() {
    if (out_.merges.size() < limits_.max_merges) return true;
    return Fail("model.merges has more than " + std::to_string(limits_.max_merges) + " entries");
  }

  bool LegacyMerge(const std::string& line) {
    if (line.starts_with("#version")) return true;  // the header line of merges.txt
    const size_t space = line.find(' ');
    if (space == std::string::npos || line.find(' ', space + 1) != std::string::npos) {
      return Fail(Where() + ": expected two parts with one space between, got '" +
                  line.substr(0, 40) + "'");
    }
    if (!CountMerge()) return false;
    out_.merges.emplace_back(line.substr(0, space), line.substr(space + 1));
    return true;
  }

  bool PairPart(std::string& part) {
    if (parts_ == 0) {
      if (!CountMerge()) return false;
      out_.merges.emplace_back(std::move(part), std::string());
    } else if (parts_ == 1) {
      out_.merges.back().second = std::move(part);
    }
    ++parts_;
    return true;
  }

  json* Place(json value) {
    if (stack_.empty()) {
      out_.root = std::move(value);
      return &out_.root;
    }
    json& top = *stack_.back();
    if (top.is_array()) {
      top.push_back(std::move(value));
      return &top.back();
    }
    json& slot = top[key_];
    slot = std::move(value);
    return &slot;
  }

  bool Value(json value) {
    if (zone_ != kDom) return Fail(Where() + ": unexpected value");
    if (++values_ > limits_.max_other_values) return Fail("too many values");
    Place(std::move(value));
    return true;
  }

  bool Open(json value) {
    if (zone_ != kDom) return Fail(Where() + ": unexpected list or object");
    if (stack_.size() >= limits_.max_depth) {
      return Fail("nested deeper than " + std::to_string(limits_.max_depth) + " levels");
    }
    if (++values_ > limits_.max_other_values) return Fail("too many values");
    if (stack_.size() == 1) root_key_ = key_;
    stack_.push_back(
        Place(std::move(value)));  // nodes above never move while they are on the stack
    return true;
  }

  TokenizerSource& out_;
  const TokenizerLimits& limits_;
  Zone zone_ = kDom;
  std::vector<json*> stack_;
  std::string key_, root_key_;
  size_t values_ = 0;
  int parts_ = 0;
};

}  // namespace

Result<TokenizerSource> ReadTokenizerJson(std::string_view text, const TokenizerLimits& limits) {
  if (text.size() > limits.max_bytes) {
    return Error{Status::kCorrupt, "tokenizer.json: has " + std::to_string(text.size()) +
                                       " bytes, at most " + std::to_string(limits.max_bytes)};
  }
  TokenizerSource source;
  Reader reader(source, limits);
  if (!json::sax_parse(text, &reader)) return reader.error;
  if (!source.root.is_object()) {
    return Error{Status::kCorrupt, "tokenizer.json: expected an object at the top"};
  }
  return source;
}

}  // namespace fretsaw
