// fretsaw-run: generates text from an artifact. All work is in the library and the files beside
// this one; here are the order of things and the reporting of errors.
#include <cstdio>
#include <exception>

#include "cli/commands.h"

namespace fretsaw::cli {
namespace {

Result<int> Dispatch(const Options& options) {
  const auto start = Clock::now();
  auto artifact = Artifact::Open(options.artifact);
  if (!artifact) return artifact.error();
  if (options.bench) return RunBench(options, std::move(artifact).value(), start);
  if (options.embed) return RunEmbed(options, std::move(artifact).value(), start);
  if (options.batch) return RunBatch(options, std::move(artifact).value(), start);
  if (!options.has_prompt()) return RunVerify(options, artifact.value());
  return RunGenerate(options, std::move(artifact).value(), start);
}

int Fail(const Error& error, bool json) {
  std::fprintf(stderr, "fretsaw-run: error: %s\n", error.message.c_str());
  const int code = static_cast<int>(error.status);
  if (json) {
    // The message is on standard error already when this cannot be written either.
    (void)PrintJson(
        {{"error",
          {{"status", StatusName(error.status)}, {"code", code}, {"message", error.message}}}});
  }
  return code;
}

int Main(int argc, char** argv) {
  const bool json = WantsJson(argc, argv);
  try {
    auto parsed = ParseOptions(argc, argv);
    if (!parsed) return Fail(parsed.error(), json);
    if (!parsed.value().options)
      return std::fputs(parsed.value().text.c_str(), stdout) < 0 ? 13 : 0;
    CatchInterrupt();
    auto code = Dispatch(*parsed.value().options);
    return code ? code.value() : Fail(code.error(), json);
  } catch (const std::bad_alloc&) {
    return Fail({Status::kOutOfMemory, "out of memory"}, json);
  } catch (const std::exception& e) {
    return Fail({Status::kInternal, std::string("unexpected: ") + e.what()}, json);
  }
}

}  // namespace
}  // namespace fretsaw::cli

int main(int argc, char** argv) { return fretsaw::cli::Main(argc, argv); }
