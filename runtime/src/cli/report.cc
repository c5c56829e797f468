#include <csignal>
#include <cstdio>

#include "base/memory_use.h"
#include "cli/commands.h"

namespace fretsaw::cli {
namespace {

std::atomic<bool> interrupted{false};
static_assert(std::atomic<bool>::is_always_lock_free);  // may be written in a signal handler

}  // namespace

const std::atomic<bool>& Interrupted() { return interrupted; }

void CatchInterrupt() {
  struct sigaction action{};
  action.sa_handler = [](int) { interrupted.store(true); };
  action.sa_flags = SA_RESETHAND | SA_RESTART;
  sigaction(SIGINT, &action, nullptr);
}

nlohmann::ordered_json MemoryJson(const Session& session, const Manifest& manifest) {
  uint64_t weights = 0;
  for (const TensorInfo& tensor : manifest.tensors) weights += tensor.bytes;
  return {{"weights_bytes", weights},
          {"kv_bytes", session.kv_bytes()},
          {"peak_rss_bytes", PeakResidentBytes()}};
}

VoidResult PrintJson(const nlohmann::ordered_json& object) {
  // Generated text is valid UTF-8 by construction; a file name in a message need not be.
  const std::string text =
      object.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
  if (std::fwrite(text.data(), 1, text.size(), stdout) != text.size() || std::fflush(stdout) != 0) {
    return Error{Status::kIo, "cannot write to standard output"};
  }
  return Ok{};
}

double Rate(int64_t tokens, double ms) {
  return ms > 0 ? static_cast<double>(tokens) * 1000.0 / ms : 0.0;
}

}  // namespace fretsaw::cli
