#include <cstdio>

#include "cli/commands.h"

namespace fretsaw::cli {

Result<int> RunVerify(const Options& options, const Artifact& artifact) {
  if (auto ok = artifact.container().VerifyAll(); !ok) return ok.error();
  const auto sections = artifact.container().sections().size();
  if (options.json) {
    auto printed =
        PrintJson({{"verified", true}, {"sections", sections}, {"bytes", artifact.file_bytes()}});
    if (!printed) return printed.error();
    return 0;
  }
  std::printf("ok: %zu sections, %llu bytes, every digest matches\n", sections,
              static_cast<unsigned long long>(artifact.file_bytes()));
  return 0;
}

}  // namespace fretsaw::cli
