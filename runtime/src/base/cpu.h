// What this machine's processor and operating system can run, by the names artifacts use.
#pragma once

#include <set>
#include <string>

namespace fretsaw {

// Usable instruction-set features ("avx2", "avx512vnni", ...): present in the processor and, where
// they need wider registers, enabled by the operating system (XCR0).
const std::set<std::string, std::less<>>& CpuFeatures();

// Physical cores this process may use: distinct cores in its affinity mask, capped by the CPU quota
// of its control group. At least 1.
int PhysicalCores();

}  // namespace fretsaw
