// Typed, bounded access to the fields of a JSON object, with the path in every message:
// "manifest: kv.layers: expected an integer from 1 to 4096, found \"x\"".
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace fretsaw {

// Thrown inside the manifest reader only, and turned into an Error at its boundary: a nested reader
// with a hundred fields reads as a list of fields instead of a list of early returns.
struct FieldError {
  std::string message;
};

// The same for a value that a newer reader may know.
struct UnsupportedField {
  std::string message;
};

class Fields {
 public:
  Fields(const nlohmann::json& value, std::string path);

  bool Has(const char* key) const;
  Fields Object(const char* key) const;
  std::vector<Fields> Objects(const char* key, size_t max_count) const;
  std::string String(const char* key, size_t max_bytes = 4096) const;
  int64_t Int(const char* key, int64_t low, int64_t high) const;
  double Number(const char* key) const;  // finite
  std::vector<int64_t> Ints(const char* key, int64_t low, int64_t high, size_t max_count) const;
  std::vector<std::string> Strings(const char* key, size_t max_count) const;
  bool BoolOr(const char* key, bool fallback) const;

  const std::string& path() const { return path_; }
  [[noreturn]] void Fail(const std::string& what) const;

 private:
  const nlohmann::json& At(const char* key) const;
  std::string PathOf(const char* key) const;

  const nlohmann::json* value_;  // borrowed
  std::string path_;
};

}  // namespace fretsaw
