// Whether a step program may be run: it names nothing that does not exist, writes only into slots
// that hold what it writes, and reads nothing before it is made (docs/program.md).
#pragma once

#include <string>
#include <vector>

#include "base/result.h"
#include "exec/program_data.h"

namespace fretsaw {

// What the rest of the artifact has for a program.
struct Surroundings {
  size_t tensors = 0;
  std::vector<std::string> cache;    // names of the cache's arguments; none in an encoder
  std::vector<std::string> inputs;   // names that the caller binds, i32 of one axis
  std::vector<std::string> symbols;  // names that the caller knows
  std::vector<std::string> entries;  // names in the manifest
};

// Errors: kCorrupt, with the entry and the place.
VoidResult VerifyProgram(const ProgramData& program, const Surroundings& around);

}  // namespace fretsaw
