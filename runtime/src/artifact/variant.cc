#include "artifact/variant.h"

namespace fretsaw {
namespace {

std::string MissingFeatures(const VariantInfo& variant,
                            const std::set<std::string, std::less<>>& machine) {
  std::string missing;
  for (const std::string& feature : variant.requires_features) {
    if (machine.contains(feature)) continue;
    missing += (missing.empty() ? "" : ", ") + feature;
  }
  return missing;
}

bool IsNamed(const VariantInfo& variant, std::string_view wanted) {
  return variant.name == wanted || variant.name == "llvm-" + std::string(wanted);
}

}  // namespace

Result<size_t> ChooseVariant(std::span<const VariantInfo> variants,
                             const std::set<std::string, std::less<>>& machine,
                             std::string_view wanted) {
  std::string names, lacking;
  for (size_t i = 0; i < variants.size(); ++i) {
    names += (i == 0 ? "" : ", ") + variants[i].name;
    if (!wanted.empty() && !IsNamed(variants[i], wanted)) continue;
    const std::string missing = MissingFeatures(variants[i], machine);
    if (missing.empty()) return i;
    lacking += (lacking.empty() ? "" : "; ") + variants[i].name + " needs " + missing;
  }
  if (lacking.empty()) {
    return Error{Status::kUsage,
                 "the artifact has no variant '" + std::string(wanted) + "'; it has " + names};
  }
  return Error{Status::kUnsupportedCpu,
               "this processor cannot run the artifact: " + lacking +
                   (wanted.empty() ? "; compile it with --cpu for this machine" : "")};
}

}  // namespace fretsaw
