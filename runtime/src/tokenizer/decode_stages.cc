#include "tokenizer/decode_stages.h"

#include <algorithm>

#include "tokenizer/normalizer.h"

namespace fretsaw {
namespace {

// "<0xNN>" with NN as Rust's from_str_radix(16) reads it (a plus sign counts as a digit's place).
int ByteOf(std::string_view token) {
  if (token.size() != 6 || !token.starts_with("<0x") || token[5] != '>') return -1;
  const auto digit = [](char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
  };
  const int high = token[3] == '+' ? 0 : digit(token[3]);
  const int low = digit(token[4]);
  return high < 0 || low < 0 ? -1 : high * 16 + low;
}

}  // namespace

std::string ReplaceAll(std::string_view text, std::string_view from, std::string_view to) {
  if (from.empty()) return std::string(text);
  std::string out;
  size_t at = 0;
  for (size_t hit = text.find(from); hit != std::string_view::npos; hit = text.find(from, at)) {
    out.append(text, at, hit - at).append(to);
    at = hit + from.size();
  }
  out.append(text, at);
  return out;
}

void ByteLevelStage::Token(std::string token) {
  std::string bytes;
  for (size_t at = 0; at < token.size();) {
    const int b = ByteLevelByte(utf8::Next(token, at));
    if (b < 0) {  // a character outside the alphabet: the whole token stands for itself
      bytes = token;
      break;
    }
    bytes.push_back(static_cast<char>(b));
  }
  std::string text;
  lossy_.Push(bytes, false, text);
  next_->Chunk(text);
}

void ByteLevelStage::Finish() {
  std::string text;
  lossy_.Push({}, true, text);
  Emit(text);
  next_->Finish();
}

void ByteFallbackStage::Token(std::string token) {
  if (const int b = ByteOf(token); b >= 0) {
    run_.push_back(static_cast<char>(b));
    return;
  }
  FlushRun();
  Emit(token);
}

void ByteFallbackStage::FlushRun() {
  if (run_.empty()) return;
  if (!utf8::FirstInvalid(run_)) {
    Emit(run_);
  } else {
    for (size_t i = 0; i < run_.size(); ++i) Emit("\xEF\xBF\xBD");
  }
  run_.clear();
}

void ByteFallbackStage::Finish() {
  FlushRun();
  next_->Finish();
}

void StripStage::Chunk(std::string_view text) {
  std::string all = std::move(pending_);
  all += text;
  pending_.clear();
  size_t begin = 0;
  while (leading_ > 0 && std::string_view(all).substr(begin).starts_with(content_)) {
    begin += content_.size();
    --leading_;
  }
  if (begin < all.size()) leading_ = 0;
  size_t end = all.size();
  for (size_t i = 0; i < stop_ && end - begin >= content_.size() &&
                     std::string_view(all).substr(begin, end - begin).ends_with(content_);
       ++i) {
    end -= content_.size();
  }
  pending_ = all.substr(end);
  next_->Chunk(std::string_view(all).substr(begin, end - begin));
}

void StripStage::EndToken() {
  pending_.clear();
  leading_ = start_;
  next_->EndToken();
}

void BpeSuffixStage::Token(std::string token) {
  if (has_last_) Emit(ReplaceAll(last_, suffix_, " "));
  last_ = std::move(token);
  has_last_ = true;
}

void BpeSuffixStage::Finish() {
  if (has_last_) Emit(ReplaceAll(last_, suffix_, ""));
  next_->Finish();
}

}  // namespace fretsaw
