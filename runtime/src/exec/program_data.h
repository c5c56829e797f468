// The section `program` of an artifact (docs/program.md) as plain data. What ParseProgram returns
// has the right form and is within its bounds; VerifyProgram says whether it may be run.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "exec/size.h"

namespace fretsaw {

enum class ValueType : uint8_t { kF32, kF16, kI32, kI64, kI8 };

int64_t ValueTypeBytes(ValueType type);

struct ValueData {
  static constexpr size_t kNone = SIZE_MAX;

  std::string name;
  ValueType type = ValueType::kF32;
  std::vector<Size> shape;
  size_t slot = kNone;  // where its bytes are
  size_t of = kNone;    // or the value whose bytes it shows in another shape
};

struct ArgData {
  enum class Kind : uint8_t { kValue, kTensor, kCache, kInt };

  Kind kind = Kind::kInt;
  int64_t number = 0;  // index of the value or tensor, or the integer itself
  std::string cache;   // name of an argument of the cache
};

struct LaunchData {
  std::string kernel;
  std::vector<ArgData> args;
  size_t made = 0;  // the last arguments, which the launch makes
};

struct EntryData {
  std::string name;
  std::vector<std::string> symbols;
  std::vector<size_t> inputs;
  size_t output = 0;
  std::vector<Size> slots;  // bytes
  std::vector<ValueData> values;
  std::vector<LaunchData> launches;
};

struct ProgramData {
  std::vector<EntryData> entries;

  const EntryData* Find(std::string_view name) const;
};

// Errors: kCorrupt (not in the form of docs/program.md, or out of its bounds), kUnsupported
// (another version of the form), kOutOfMemory.
Result<ProgramData> ParseProgram(std::string_view json);

}  // namespace fretsaw
