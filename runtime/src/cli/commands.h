// What fretsaw-run does with an opened artifact, and how it reports.
#pragma once

#include <atomic>
#include <chrono>
#include <nlohmann/json.hpp>
#include <string>

#include "artifact/artifact.h"
#include "base/result.h"
#include "cli/options.h"
#include "model/session.h"

namespace fretsaw::cli {

using Clock = std::chrono::steady_clock;

inline double MsSince(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

// Each prints its own output and returns the process's exit code, or the error to print. `start` is
// when the process began to load the artifact.
Result<int> RunGenerate(const Options& options, Artifact artifact, Clock::time_point start);
Result<int> RunBench(const Options& options, Artifact artifact, Clock::time_point start);
Result<int> RunBatch(const Options& options, Artifact artifact, Clock::time_point start);
Result<int> RunEmbed(const Options& options, Artifact artifact, Clock::time_point start);
Result<int> RunVerify(const Options& options, const Artifact& artifact);

// Set by Ctrl-C; a second one ends the process at once.
const std::atomic<bool>& Interrupted();
void CatchInterrupt();

inline constexpr int kInterruptedExit = 130;  // 128 + SIGINT, as shells report it
inline constexpr int kSomeFailedExit = 20;    // --batch went through, but some lines have errors

// The "memory" object of --json.
nlohmann::ordered_json MemoryJson(const Session& session, const Manifest& manifest);
// One object and a newline on standard output. Errors: kIo.
VoidResult PrintJson(const nlohmann::ordered_json& object);
// Tokens per second, 0 when nothing was measured.
double Rate(int64_t tokens, double ms);

}  // namespace fretsaw::cli
