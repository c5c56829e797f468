#include "cli/input.h"

#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <memory>

namespace fretsaw::cli {
namespace {

constexpr size_t kMaxPromptBytes = size_t{256} << 20;

Result<std::string> ReadAll(std::FILE* file, const std::string& name) {
  std::string text;
  char buffer[1 << 16];
  while (const size_t n = std::fread(buffer, 1, sizeof buffer, file)) {
    text.append(buffer, n);
    if (text.size() > kMaxPromptBytes) {
      return Error{Status::kPromptTooLong, name + ": more than 256 MiB of prompt"};
    }
  }
  if (std::ferror(file)) {
    return Error{Status::kIo, "cannot read " + name + ": " + std::strerror(errno)};
  }
  return text;
}

Result<std::string> ReadFile(const std::string& path) {
  if (path == "-") return ReadAll(stdin, "standard input");
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path.c_str(), "rb"),
                                                             std::fclose);
  if (file == nullptr) {
    return Error{Status::kFileNotFound,
                 "cannot open prompt file '" + path + "': " + std::strerror(errno)};
  }
  return ReadAll(file.get(), "'" + path + "'");
}

Result<std::vector<int32_t>> ParseIds(const std::string& text) {
  std::vector<int32_t> ids;
  const char* at = text.data();
  const char* const end = at + text.size();
  while (at != end) {
    if (std::strchr(", \t\n", *at) != nullptr) {
      ++at;
      continue;
    }
    int32_t id = 0;
    const auto [next, error] = std::from_chars(at, end, id);
    if (error != std::errc() || (next != end && std::strchr(", \t\n", *next) == nullptr)) {
      return Error{Status::kBadInput, "ids: '" + std::string(at, end) +
                                          "' does not start with a token id; give whole numbers "
                                          "separated by commas or spaces"};
    }
    ids.push_back(id);
    at = next;
  }
  return ids;
}

}  // namespace

Result<std::vector<int32_t>> ReadPrompt(const Options& options, const TextCodec& codec) {
  const auto not_empty = [](Result<std::vector<int32_t>> ids) -> Result<std::vector<int32_t>> {
    if (ids && ids.value().empty()) {
      return Error{Status::kBadInput, "the prompt is empty; give at least one token of text"};
    }
    return ids;
  };
  if (options.ids) return not_empty(ParseIds(*options.ids));
  auto text = options.prompt_file      ? ReadFile(*options.prompt_file)
              : *options.prompt == "-" ? ReadFile("-")
                                       : Result<std::string>(*options.prompt);
  if (!text) return text.error();
  if (text.value().empty()) return not_empty(std::vector<int32_t>());
  if (!options.chat) return not_empty(codec.Encode(text.value(), true));
  std::vector<ChatTurn> turns;
  if (options.system) turns.push_back({"system", *options.system});
  turns.push_back({"user", text.value()});
  auto rendered = codec.ApplyChat(turns);
  if (!rendered) return rendered.error();
  return not_empty(codec.Encode(rendered.value(), false));
}

}  // namespace fretsaw::cli
