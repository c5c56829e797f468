// Fuzzes the step program. The input is a list of edits to a good program, so that the fuzzer need
// not find JSON first: where (two bytes), how many bytes go, how many come, and these. What is
// accepted is held against what a reader of docs/program.md would check with numbers in the place
// of symbols.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "exec/program_data.h"
#include "exec/program_verify.h"

namespace {

using fretsaw::EntryData;
using fretsaw::ValueData;

constexpr const char* kGood = R"({"version": 1, "entries": [{
"name": "step", "symbols": ["R", "T"], "inputs": [0, 1], "outputs": [5],
"slots": [{"T": 64}, {"T": 32, "": 16}, {"R": 8}],
"values": [{"name": "tokens", "dtype": "i32", "shape": [{"T": 1}]}, {"name": "rows", "dtype": "i32", "shape": [{"R": 1}]},
{"name": "x", "dtype": "f32", "shape": [{"T": 1}, 16], "slot": 0}, {"name": "h", "dtype": "f32", "shape": [{"T": 2}, 8], "of": 2},
{"name": "y", "dtype": "f16", "shape": [{"T": 1}, 16], "slot": 1}, {"name": "out", "dtype": "f32", "shape": [{"R": 1}, 2], "slot": 2}],
"launches": [{"kernel": "f", "args": [["value", 0], ["value", 2]], "made": 1},
{"kernel": "g", "args": [["value", 3], ["tensor", 0], ["cache", "table"], ["int", -3], ["value", 4]], "made": 1},
{"kernel": "h", "args": [["value", 4], ["value", 1], ["value", 5]], "made": 1}]}]})";

std::string Edited(const uint8_t* data, size_t size) {
  std::string text = kGood;
  size_t at = 0;
  while (size - at >= 4) {
    const size_t where = (data[at] | data[at + 1] << 8) % (text.size() + 1);
    const size_t gone = data[at + 2] % 16;
    const size_t come = std::min<size_t>(data[at + 3] % 16, size - at - 4);
    text.replace(where, gone, reinterpret_cast<const char*>(data) + at + 4, come);
    at += 4 + come;
  }
  return text;
}

void Require(bool holds) {
  if (!holds) abort();
}

void CheckWithNumbers(const EntryData& entry) {
  for (const int64_t number : {0, 1, 7, 4096}) {
    const std::vector<int64_t> symbols(entry.symbols.size(), number);
    for (size_t i = 0; i < entry.values.size(); ++i) {
      const ValueData& value = entry.values[i];
      int64_t elements = 1;
      bool known = true;
      for (const auto& axis : value.shape) {
        const auto extent = axis.At(symbols);
        known = known && extent && !__builtin_mul_overflow(elements, *extent, &elements);
      }
      if (!known || value.slot == ValueData::kNone) continue;
      const auto room = entry.slots[value.slot].At(symbols);
      Require(!room || elements <= *room / fretsaw::ValueTypeBytes(value.type));
    }
  }
  Require(entry.output < entry.values.size());
  for (const auto& launch : entry.launches) Require(launch.made <= launch.args.size());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  auto program = fretsaw::ParseProgram(Edited(data, size));
  if (!program) return 0;
  const fretsaw::Surroundings around{
      1, {"table"}, {"tokens", "positions", "rows"}, {"T", "R", "B"}, {"step"}};
  if (!fretsaw::VerifyProgram(program.value(), around)) return 0;
  for (const EntryData& entry : program.value().entries) CheckWithNumbers(entry);
  return 0;
}
