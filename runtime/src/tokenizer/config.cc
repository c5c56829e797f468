#include "tokenizer/config.h"

#include <algorithm>

namespace fretsaw {
namespace {
const nlohmann::json kNull;
}  // namespace

void Config::Corrupt(const std::string& message) const {
  throw ConfigFailure{{Status::kCorrupt, "tokenizer.json: " + path_ + ": " + message}};
}

void Config::Unsupported(const std::string& message) const {
  throw ConfigFailure{{Status::kUnsupported, "tokenizer.json: " + path_ + ": " + message}};
}

bool Config::Has(std::string_view key) const {
  return node_->is_object() && node_->contains(key) && !(*node_)[std::string(key)].is_null();
}

Config Config::At(std::string_view key) const {
  std::string path = path_.empty() ? std::string(key) : path_ + "." + std::string(key);
  if (!node_->is_object()) Corrupt("expected an object, got " + std::string(node_->type_name()));
  const auto it = node_->find(key);
  return {it == node_->end() ? kNull : *it, std::move(path)};
}

Config Config::At(size_t index) const {
  return {(*node_)[index], path_ + "[" + std::to_string(index) + "]"};
}

size_t Config::Size() const {
  if (!node_->is_array()) Corrupt("expected a list, got " + std::string(node_->type_name()));
  return node_->size();
}

std::string Config::Text() const {
  if (!node_->is_string()) Corrupt("expected text, got " + std::string(node_->type_name()));
  return node_->get<std::string>();
}

bool Config::Flag() const {
  if (!node_->is_boolean()) {
    Corrupt("expected true or false, got " + std::string(node_->type_name()));
  }
  return node_->get<bool>();
}

int64_t Config::Int(int64_t low, int64_t high) const {
  if (!node_->is_number_integer()) {
    Corrupt("expected a whole number, got " + std::string(node_->type_name()));
  }
  const auto value = node_->get<int64_t>();
  if (value < low || value > high) {
    Corrupt(std::to_string(value) + " is outside " + std::to_string(low) + ".." +
            std::to_string(high));
  }
  return value;
}

std::string Config::Text(std::string_view key, std::string fallback) const {
  return Has(key) ? Text(key) : std::move(fallback);
}

bool Config::Flag(std::string_view key, bool fallback) const {
  return Has(key) ? Flag(key) : fallback;
}

std::string Config::Type(std::string_view what, std::span<const std::string_view> known) const {
  const std::string type = At("type").Text();
  if (std::ranges::find(known, type) != known.end()) return type;
  std::string list;
  for (const auto name : known) list += (list.empty() ? "" : ", ") + std::string(name);
  Unsupported(std::string(what) + " '" + type + "' is not supported; supported are " + list);
}

}  // namespace fretsaw
