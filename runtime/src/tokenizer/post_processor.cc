#include "tokenizer/post_processor.h"

#include "tokenizer/features.h"

namespace fretsaw {
namespace {
constexpr size_t kMaxParts = 4096;  // template entries, and ids of one special token
}  // namespace

PostProcessor::PostProcessor(const Config& config, int32_t last_id) : last_id_(last_id) {
  if (!config.IsNull()) Add(config, 0);
}

int32_t PostProcessor::Id(const Config& config) const {
  return static_cast<int32_t>(config.Int(0, last_id_));
}

void PostProcessor::Add(const Config& config, int depth) {
  const std::string type = config.Type("post_processor", features::kPostProcessors);
  if (type == "Sequence") {
    if (depth > 8) config.Corrupt("sequences nested deeper than 8");
    const Config list = config.At("processors");
    for (size_t i = 0; i < list.Size(); ++i) Add(list.At(i), depth + 1);
    return;
  }
  if (type == "ByteLevel") return;  // moves offsets only, which this runtime does not report
  if (has_parts_) config.Unsupported("a second processor that adds tokens");
  has_parts_ = true;
  if (type == "TemplateProcessing") {
    AddTemplate(config);
  } else {
    AddPair(config);
  }
}

void PostProcessor::AddPair(const Config& config) {
  const auto id = [&](std::string_view key) {
    const Config pair = config.At(key);
    if (pair.Size() != 2) pair.Corrupt("expected [token, id]");
    return Id(pair.At(1));
  };
  parts_ = {{false, {id("cls")}}, {true, {}}, {false, {id("sep")}}};
}

void PostProcessor::AddTemplate(const Config& config) {
  const Config list = config.At("single");
  if (list.Size() > kMaxParts) list.Corrupt("more than " + std::to_string(kMaxParts) + " entries");
  size_t sequences = 0;
  for (size_t i = 0; i < list.Size(); ++i) {
    const Config entry = list.At(i);
    if (entry.Has("Sequence")) {
      if (entry.At("Sequence").Text("id") != "A") {
        entry.Unsupported("the template for one text may only use sequence A");
      }
      if (++sequences > 1) entry.Unsupported("sequence A is used twice");
      parts_.push_back({true, {}});
      continue;
    }
    const std::string name = entry.At("SpecialToken").Text("id");
    if (!config.At("special_tokens").Has(name)) {
      entry.Corrupt("special token '" + name + "' is missing in special_tokens");
    }
    const Config ids = config.At("special_tokens").At(name).At("ids");
    if (ids.Size() > kMaxParts) ids.Corrupt("more than " + std::to_string(kMaxParts) + " ids");
    Part part;
    for (size_t k = 0; k < ids.Size(); ++k) part.ids.push_back(Id(ids.At(k)));
    parts_.push_back(std::move(part));
  }
  if (sequences == 0) list.Unsupported("the template does not use sequence A");
}

std::vector<int32_t> PostProcessor::Apply(std::vector<int32_t> ids, bool add_special_tokens) const {
  if (!has_parts_ || !add_special_tokens) return ids;
  std::vector<int32_t> out;
  for (const Part& part : parts_) {
    const auto& from = part.sequence ? ids : part.ids;
    out.insert(out.end(), from.begin(), from.end());
  }
  return out;
}

}  // namespace fretsaw
