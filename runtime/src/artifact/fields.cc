#include "artifact/fields.h"

#include <utility>

namespace fretsaw {
namespace {

using nlohmann::json;

// What was found, short enough for a message whatever the file holds.
std::string Found(const json& value) {
  if (value.is_number() || value.is_boolean() || value.is_null()) return value.dump();
  return std::string("a value of type ") + value.type_name();
}

int64_t CheckedInt(const json& value, const std::string& path, int64_t low, int64_t high) {
  // Unsigned values over int64's range must not wrap into it.
  const bool fits = value.is_number_integer() &&
                    !(value.is_number_unsigned() && value.get<uint64_t>() > uint64_t{INT64_MAX});
  if (fits) {
    const auto number = value.get<int64_t>();
    if (number >= low && number <= high) return number;
  }
  throw FieldError{path + ": expected an integer from " + std::to_string(low) + " to " +
                   std::to_string(high) + ", found " + Found(value)};
}

const json& CheckedArray(const json& value, const std::string& path, size_t max_count) {
  if (!value.is_array()) throw FieldError{path + ": expected a list, found " + Found(value)};
  if (value.size() > max_count) {
    throw FieldError{path + ": " + std::to_string(value.size()) + " entries, at most " +
                     std::to_string(max_count)};
  }
  return value;
}

std::string CheckedString(const json& value, const std::string& path, size_t max_bytes) {
  if (!value.is_string()) throw FieldError{path + ": expected a string, found " + Found(value)};
  const auto& text = value.get_ref<const std::string&>();
  if (text.size() > max_bytes) {
    throw FieldError{path + ": longer than " + std::to_string(max_bytes) + " bytes"};
  }
  return text;
}

}  // namespace

Fields::Fields(const json& value, std::string path) : value_(&value), path_(std::move(path)) {
  if (!value.is_object()) throw FieldError{path_ + ": expected an object, found " + Found(value)};
}

std::string Fields::PathOf(const char* key) const {
  return path_.empty() ? std::string(key) : path_ + "." + key;
}

void Fields::Fail(const std::string& what) const { throw FieldError{path_ + ": " + what}; }

const json& Fields::At(const char* key) const {
  const auto found = value_->find(key);
  if (found == value_->end()) throw FieldError{PathOf(key) + ": missing"};
  return *found;
}

bool Fields::Has(const char* key) const {
  const auto found = value_->find(key);
  return found != value_->end() && !found->is_null();
}

Fields Fields::Object(const char* key) const { return Fields(At(key), PathOf(key)); }

std::vector<Fields> Fields::Objects(const char* key, size_t max_count) const {
  const json& list = CheckedArray(At(key), PathOf(key), max_count);
  std::vector<Fields> objects;
  objects.reserve(list.size());
  for (size_t i = 0; i < list.size(); ++i) {
    objects.emplace_back(list[i], PathOf(key) + "[" + std::to_string(i) + "]");
  }
  return objects;
}

std::string Fields::String(const char* key, size_t max_bytes) const {
  return CheckedString(At(key), PathOf(key), max_bytes);
}

int64_t Fields::Int(const char* key, int64_t low, int64_t high) const {
  return CheckedInt(At(key), PathOf(key), low, high);
}

double Fields::Number(const char* key) const {
  const json& value = At(key);
  if (!value.is_number()) {
    throw FieldError{PathOf(key) + ": expected a number, found " + Found(value)};
  }
  return value.get<double>();
}

std::vector<int64_t> Fields::Ints(const char* key, int64_t low, int64_t high,
                                  size_t max_count) const {
  const json& list = CheckedArray(At(key), PathOf(key), max_count);
  std::vector<int64_t> numbers;
  numbers.reserve(list.size());
  for (const json& item : list) numbers.push_back(CheckedInt(item, PathOf(key), low, high));
  return numbers;
}

std::vector<std::string> Fields::Strings(const char* key, size_t max_count) const {
  const json& list = CheckedArray(At(key), PathOf(key), max_count);
  std::vector<std::string> texts;
  texts.reserve(list.size());
  for (const json& item : list) texts.push_back(CheckedString(item, PathOf(key), 4096));
  return texts;
}

bool Fields::BoolOr(const char* key, bool fallback) const {
  if (!Has(key)) return fallback;
  const json& value = At(key);
  if (!value.is_boolean()) {
    throw FieldError{PathOf(key) + ": expected true or false, found " + Found(value)};
  }
  return value.get<bool>();
}

}  // namespace fretsaw
