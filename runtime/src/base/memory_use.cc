#include "base/memory_use.h"

#include <fstream>
#include <limits>
#include <string>

namespace fretsaw {

uint64_t PeakResidentBytes() {
  std::ifstream status("/proc/self/status");
  std::string key;
  while (status >> key) {
    if (key == "VmHWM:") {
      uint64_t kib = 0;
      return status >> kib ? kib * 1024 : 0;
    }
    status.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
  }
  return 0;
}

}  // namespace fretsaw
