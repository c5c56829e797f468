#include "base/result.h"

namespace fretsaw {

const char* StatusName(Status status) {
  switch (status) {
    case Status::kOk:
      return "ok";
    case Status::kInternal:
      return "internal";
    case Status::kUsage:
      return "usage";
    case Status::kFileNotFound:
      return "file_not_found";
    case Status::kBadMagic:
      return "bad_magic";
    case Status::kNewerVersion:
      return "newer_version";
    case Status::kTruncated:
      return "truncated";
    case Status::kCorrupt:
      return "corrupt";
    case Status::kUnsupportedCpu:
      return "unsupported_cpu";
    case Status::kBadInput:
      return "bad_input";
    case Status::kPromptTooLong:
      return "prompt_too_long";
    case Status::kUnsupported:
      return "unsupported";
    case Status::kOutOfMemory:
      return "out_of_memory";
    case Status::kIo:
      return "io";
    case Status::kCancelled:
      return "cancelled";
    case Status::kBusy:
      return "busy";
  }
  return "unknown";
}

}  // namespace fretsaw
