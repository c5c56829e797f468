#include "tokenizer/regex.h"

#include <oniguruma.h>

#include <mutex>

#include "tokenizer/utf8.h"

namespace fretsaw {
namespace {

constexpr size_t kMaxPattern = 1u << 16;           // bytes as written
constexpr unsigned long kMaxRetries = 10'000'000;  // backtracks in one search
constexpr unsigned int kMaxStack = 1'000'000;      // backtrack entries

const OnigUChar* Bytes(std::string_view text) {
  return reinterpret_cast<const OnigUChar*>(text.data());
}

std::string OnigMessage(int code, OnigErrorInfo* info) {
  OnigUChar buffer[ONIG_MAX_ERROR_MESSAGE_LEN];
  const int n = onig_error_code_to_str(buffer, code, info);
  return {reinterpret_cast<char*>(buffer), static_cast<size_t>(n > 0 ? n : 0)};
}

std::mutex& OnigLock() {  // compiling touches Oniguruma's global tables; matching does not
  static std::mutex lock;
  return lock;
}

void InitializeOnce() {
  static const bool done = [] {
    OnigEncoding encodings[] = {ONIG_ENCODING_UTF8};
    onig_initialize(encodings, 1);
    onig_set_parse_depth_limit(256);
    return true;
  }();
  (void)done;
}

// One search's scratch space: the match parameters carry the limits, the region the offsets.
struct Scratch {
  OnigMatchParam* param = onig_new_match_param();
  OnigRegion* region = onig_region_new();
  Scratch() {
    onig_initialize_match_param(param);
    onig_set_retry_limit_in_match_of_match_param(param, kMaxRetries);
    onig_set_retry_limit_in_search_of_match_param(param, kMaxRetries);
    onig_set_match_stack_limit_size_of_match_param(param, kMaxStack);
  }
  ~Scratch() {
    onig_free_match_param(param);
    onig_region_free(region, 1);
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
};

void FindLiteral(std::string_view literal, std::string_view text, std::vector<Span>& out) {
  size_t previous = 0;
  for (size_t at = text.find(literal); at != std::string_view::npos;
       at = text.find(literal, previous)) {
    if (at != previous) out.push_back({previous, at, false});
    previous = at + literal.size();
    out.push_back({at, previous, true});
  }
  if (previous != text.size()) out.push_back({previous, text.size(), false});
}

}  // namespace

struct Regex::Program {
  regex_t* code = nullptr;
  Program() = default;
  ~Program() {
    if (code != nullptr) onig_free(code);
  }
  Program(const Program&) = delete;
  Program& operator=(const Program&) = delete;
};

Result<Regex> Regex::Compile(std::string_view source, bool literal) {
  Regex regex;
  if (literal && !source.empty()) {
    regex.literal_ = source;
    return regex;
  }
  if (source.size() > kMaxPattern) {
    return Error{Status::kUnsupported, "pattern has " + std::to_string(source.size()) +
                                           " bytes, at most " + std::to_string(kMaxPattern)};
  }
  auto rewritten = RewriteUnicodeClasses(source);
  if (!rewritten) return rewritten.error();
  const std::string& text = rewritten.value();
  auto program = std::make_shared<Program>();
  const std::lock_guard guard(OnigLock());
  InitializeOnce();
  OnigErrorInfo info{};
  const int code = onig_new(&program->code, Bytes(text), Bytes(text) + text.size(),
                            ONIG_OPTION_NONE, ONIG_ENCODING_UTF8, ONIG_SYNTAX_RUBY, &info);
  if (code != ONIG_NORMAL) {
    program->code = nullptr;
    // onig_error_code_to_str reads `info` only for codes that carry a name.
    return Error{Status::kCorrupt, "pattern is not valid: " + OnigMessage(code, &info)};
  }
  regex.program_ = std::move(program);
  return regex;
}

VoidResult Regex::FindAll(std::string_view text, std::vector<Span>& out) const {
  out.clear();
  if (text.empty()) {
    out.push_back({0, 0, false});
    return Ok{};
  }
  if (!program_) {
    FindLiteral(literal_, text, out);
    return Ok{};
  }
  const Scratch scratch;
  size_t from = 0, previous = 0;
  size_t last_end = std::string_view::npos;  // end of the last accepted match
  while (from <= text.size()) {
    onig_region_clear(scratch.region);
    const int found = onig_search_with_param(program_->code, Bytes(text), Bytes(text) + text.size(),
                                             Bytes(text) + from, Bytes(text) + text.size(),
                                             scratch.region, ONIG_OPTION_NONE, scratch.param);
    if (found == ONIG_MISMATCH) break;
    if (found < 0) {
      return Error{Status::kUnsupported, "a pattern of the tokenizer gave up on this text: " +
                                             OnigMessage(found, nullptr)};
    }
    const auto begin = static_cast<size_t>(scratch.region->beg[0]);
    const auto end = static_cast<size_t>(scratch.region->end[0]);
    // An empty match right after the last match is not a match: step over one character.
    if (begin == end && end == last_end) {
      from += from < text.size() ? utf8::Length(static_cast<unsigned char>(text[from])) : 1;
      continue;
    }
    if (begin < previous || end < begin) break;  // \K or lookbehind oddities: never go back
    from = last_end = end;
    if (previous != begin) out.push_back({previous, begin, false});
    out.push_back({begin, end, true});
    previous = end;
  }
  if (previous != text.size()) out.push_back({previous, text.size(), false});
  return Ok{};
}

}  // namespace fretsaw
