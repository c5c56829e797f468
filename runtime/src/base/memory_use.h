// How much memory this process has used.
#pragma once

#include <cstdint>

namespace fretsaw {

// Most bytes ever resident at once (VmHWM: with shared and file-backed pages), 0 when unknown.
uint64_t PeakResidentBytes();

}  // namespace fretsaw
