// Typed, path-carrying access to the JSON of one component. A wrong type or an unknown name is an
// error that says where, what was found and what is possible.
#pragma once

#include <nlohmann/json.hpp>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>

#include "base/result.h"

namespace fretsaw {

// Carries an Error out of nested builders; Tokenizer::Load catches it. Never leaves the library.
struct ConfigFailure {
  Error error;
};

class Config {
 public:
  Config(const nlohmann::json& node, std::string path) : node_(&node), path_(std::move(path)) {}

  const std::string& path() const { return path_; }
  bool IsNull() const { return node_->is_null(); }
  bool IsArray() const { return node_->is_array(); }
  bool IsObject() const { return node_->is_object(); }
  bool IsString() const { return node_->is_string(); }
  const nlohmann::json& node() const { return *node_; }

  bool Has(std::string_view key) const;  // present and not null
  Config At(std::string_view key) const;
  Config At(size_t index) const;
  size_t Size() const;  // of an array

  std::string Text() const;
  bool Flag() const;
  int64_t Int(int64_t low, int64_t high) const;

  std::string Text(std::string_view key) const { return At(key).Text(); }
  std::string Text(std::string_view key, std::string fallback) const;
  bool Flag(std::string_view key) const { return At(key).Flag(); }
  bool Flag(std::string_view key, bool fallback) const;

  // The component's "type", which must be one of `known`.
  std::string Type(std::string_view what, std::span<const std::string_view> known) const;

  [[noreturn]] void Corrupt(const std::string& message) const;
  [[noreturn]] void Unsupported(const std::string& message) const;

 private:
  const nlohmann::json* node_;
  std::string path_;
};

// Unwraps, or throws ConfigFailure with the config's path in front.
template <typename T>
T Need(Result<T> result, const Config& config) {
  if (!result) {
    throw ConfigFailure{{result.error().status,
                         "tokenizer.json: " + config.path() + ": " + result.error().message}};
  }
  return std::move(result).value();
}

}  // namespace fretsaw
