#include "tokenizer/pre_tokenizer.h"

#include "tokenizer/features.h"
#include "tokenizer/metaspace.h"
#include "tokenizer/normalizer.h"
#include "tokenizer/unicode.h"
#include "tokenizer/utf8.h"

namespace fretsaw {
namespace {

// GPT-2's pattern, which ByteLevel carries when use_regex is set.
constexpr std::string_view kGpt2Pattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";

SplitBehavior BehaviorOf(const Config& config, std::string fallback) {
  const std::string name = config.Text("behavior", std::move(fallback));
  if (name == "Removed") return SplitBehavior::kRemoved;
  if (name == "Isolated") return SplitBehavior::kIsolated;
  if (name == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return SplitBehavior::kMergedWithNext;
  if (name == "Contiguous") return SplitBehavior::kContiguous;
  config.Unsupported("behavior '" + name + "' is not supported");
}

// Runs of word characters and runs of other characters that are not white space.
void FindWords(std::string_view text, std::vector<Span>& out) {
  out.clear();
  const auto kind = [](uint32_t c) {
    return unicode::IsRustWord(c) ? 2 : unicode::IsWhiteSpace(c) ? 0 : 1;
  };
  for (size_t at = 0; at < text.size();) {
    const size_t begin = at;
    const int first = kind(utf8::Next(text, at));
    for (size_t next = at; at < text.size(); at = next) {
      if (kind(utf8::Next(text, next)) != first) break;
    }
    out.push_back({begin, at, first == 0});  // what is removed counts as the match
  }
}

}  // namespace

PreTokenizer::PreTokenizer(const Config& config) {
  if (!config.IsNull()) Add(config, 0);
}

VoidResult PreTokenizer::Apply(Pieces& pieces) const {
  for (const Step& step : steps_) {
    Pieces next;
    next.reserve(pieces.size());
    for (Piece& piece : pieces) {
      if (piece.token >= 0) {
        next.push_back(std::move(piece));
      } else if (auto done = step(piece, next); !done) {
        return done.error();
      }
    }
    pieces = std::move(next);
  }
  return Ok{};
}

void PreTokenizer::AddCharSplit(bool (*test)(uint32_t), SplitBehavior behavior) {
  steps_.push_back([=](Piece& piece, Pieces& out) -> VoidResult {
    std::vector<Span> spans;
    FindChars(piece.text, test, spans);
    SplitPiece(piece, spans, behavior, out);
    return Ok{};
  });
}

void PreTokenizer::AddByteLevel(const Config& config) {
  const bool prefix = config.Flag("add_prefix_space");
  const bool split = config.Flag("use_regex", true);
  const Regex pattern = Need(Regex::Compile(kGpt2Pattern, false), config);
  steps_.push_back([=](Piece& piece, Pieces& out) -> VoidResult {
    if (prefix && !piece.text.starts_with(' ')) piece.text.insert(piece.text.begin(), ' ');
    const size_t first = out.size();
    if (split) {
      std::vector<Span> spans;
      if (auto found = pattern.FindAll(piece.text, spans); !found) return found.error();
      SplitPiece(piece, spans, SplitBehavior::kIsolated, out);
    } else {
      out.push_back(std::move(piece));
    }
    for (size_t i = first; i < out.size(); ++i) {
      std::string mapped;
      AppendByteLevel(out[i].text, mapped);
      out[i].text = std::move(mapped);
    }
    return Ok{};
  });
}

void PreTokenizer::AddMetaspace(const Config& config) {
  const MetaspaceOptions options(config);
  const Regex space = Need(Regex::Compile(" ", true), config);
  const Regex mark = Need(Regex::Compile(options.replacement, true), config);
  steps_.push_back([=](Piece& piece, Pieces& out) -> VoidResult {
    std::vector<Span> spans;
    if (auto found = space.FindAll(piece.text, spans); !found) return found.error();
    std::string text;
    for (const Span& s : spans) {
      text += s.match ? options.replacement : piece.text.substr(s.begin, s.end - s.begin);
    }
    piece.text = std::move(text);
    const bool wanted = options.scheme == MetaspaceOptions::kAlways ||
                        (options.scheme == MetaspaceOptions::kFirst && piece.at_start);
    if (wanted && !piece.text.starts_with(options.replacement)) {
      piece.text.insert(0, options.replacement);
    }
    if (!options.split) {
      out.push_back(std::move(piece));
      return Ok{};
    }
    if (auto found = mark.FindAll(piece.text, spans); !found) return found.error();
    SplitPiece(piece, spans, SplitBehavior::kMergedWithNext, out);
    return Ok{};
  });
}

void PreTokenizer::Add(const Config& config, int depth) {
  const std::string type = config.Type("pre_tokenizer", features::kPreTokenizers);
  if (type == "Sequence") {
    if (depth > 8) config.Corrupt("sequences nested deeper than 8");
    const Config list = config.At("pretokenizers");
    for (size_t i = 0; i < list.Size(); ++i) Add(list.At(i), depth + 1);
  } else if (type == "ByteLevel") {
    AddByteLevel(config);
  } else if (type == "Metaspace") {
    AddMetaspace(config);
  } else if (type == "Split") {
    steps_.push_back([pattern = PatternOf(config), behavior = BehaviorOf(config, ""),
                      invert = config.Flag("invert")](Piece& piece, Pieces& out) -> VoidResult {
      std::vector<Span> spans;
      if (auto found = pattern.FindAll(piece.text, spans); !found) return found.error();
      for (Span& s : spans) s.match = s.match != invert;
      SplitPiece(piece, spans, behavior, out);
      return Ok{};
    });
  } else if (type == "Digits") {
    AddCharSplit(unicode::IsRustNumeric, config.Flag("individual_digits", false)
                                             ? SplitBehavior::kIsolated
                                             : SplitBehavior::kContiguous);
  } else if (type == "Whitespace") {
    steps_.push_back([](Piece& piece, Pieces& out) -> VoidResult {
      std::vector<Span> spans;
      FindWords(piece.text, spans);
      SplitPiece(piece, spans, SplitBehavior::kRemoved, out);
      return Ok{};
    });
  } else if (type == "WhitespaceSplit") {
    AddCharSplit(unicode::IsWhiteSpace, SplitBehavior::kRemoved);
  } else if (type == "BertPreTokenizer") {
    AddCharSplit(unicode::IsWhiteSpace, SplitBehavior::kRemoved);
    AddCharSplit(unicode::IsBertPunct, SplitBehavior::kIsolated);
  } else if (type == "Punctuation") {
    AddCharSplit(unicode::IsBertPunct, BehaviorOf(config, "Isolated"));
  } else {  // CharDelimiterSplit
    const std::string delimiter = config.Text("delimiter");
    if (delimiter.empty()) config.Corrupt("delimiter is empty");
    steps_.push_back([pattern = Need(Regex::Compile(delimiter, true), config)](
                         Piece& piece, Pieces& out) -> VoidResult {
      std::vector<Span> spans;
      if (auto found = pattern.FindAll(piece.text, spans); !found) return found.error();
      SplitPiece(piece, spans, SplitBehavior::kRemoved, out);
      return Ok{};
    });
  }
}

}  // namespace fretsaw
