#include "tokenizer/metaspace.h"

#include "tokenizer/utf8.h"

namespace fretsaw {

MetaspaceOptions::MetaspaceOptions(const Config& config)
    : replacement(config.Text("replacement")), split(config.Flag("split", true)) {
  if (replacement.empty() ||
      replacement.size() != utf8::Length(static_cast<unsigned char>(replacement[0]))) {
    config.At("replacement").Corrupt("expected one character");
  }
  const std::string name = config.Text("prepend_scheme", "always");
  if (name == "always") {
    scheme = kAlways;
  } else if (name == "first") {
    scheme = kFirst;
  } else if (name == "never") {
    scheme = kNever;
  } else {
    config.At("prepend_scheme")
        .Unsupported("'" + name + "' is not supported; use always, first or never");
  }
  if (!config.Flag("add_prefix_space", true) && scheme != kNever) {
    config.Corrupt("add_prefix_space is false but prepend_scheme is '" + name + "'");
  }
}

}  // namespace fretsaw
