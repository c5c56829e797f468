#include <nlohmann/json.hpp>
#include <vector>

#include "capi/handles.h"

namespace {

using namespace fretsaw;  // NOLINT(build/namespaces): the whole file is a thin skin over it

// `model` is a Model or an Encoder.
template <typename Loaded>
std::string Info(const Loaded& model, const TextCodec& codec) {
  nlohmann::ordered_json info;
  info["manifest"] = nlohmann::ordered_json::parse(model.artifact().container().manifest());
  info["variant"] = model.variant();
  info["threads"] = model.threads();
  info["weights_bytes"] = model.artifact().weights().size();
  info["has_tokenizer"] = codec.available();
  info["has_chat_template"] = codec.has_chat_template();
  return info.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

template <typename Loaded>
VoidResult Keep(Result<std::unique_ptr<Loaded>> made, std::unique_ptr<Loaded>* place) {
  if (!made) return made.error();
  *place = std::move(made).value();
  return Ok{};
}

// Of the calling thread: another thread's call must not free what this one still reads.
void HandOutText(std::string made, const char** text, size_t* bytes) {
  thread_local std::string answer;
  answer = std::move(made);
  *text = answer.data();
  *bytes = answer.size();
}

// A forked process keeps its copy: ending it would wait for threads that only the other process
// has.
void Free(fsw_model* model) {
  if (getpid() == model->process) delete model;
}

}  // namespace

std::string& fretsaw::capi::LastError() {
  thread_local std::string error;
  return error;
}

void fsw_version(int32_t version[3]) {
  version[0] = FSW_VERSION_MAJOR;
  version[1] = FSW_VERSION_MINOR;
  version[2] = FSW_VERSION_PATCH;
}

const char* fsw_last_error(void) { return capi::LastError().c_str(); }

const char* fsw_status_name(fsw_status status) { return StatusName(static_cast<Status>(status)); }

fsw_status fsw_model_open(const char* path, const fsw_model_options* options, fsw_model** out) {
  return capi::Guard([&]() -> VoidResult {
    if (path == nullptr) return capi::NullArgument("path");
    if (out == nullptr) return capi::NullArgument("model");
    *out = nullptr;
    ModelOptions chosen;
    if (options != nullptr) {
      if (options->struct_bytes < sizeof *options) {
        return Error{Status::kUsage, "fsw_model_options.struct_bytes is not set"};
      }
      chosen.threads = options->threads;
      chosen.verify = options->verify != 0;
      if (options->variant != nullptr) chosen.variant = options->variant;
    }
    auto artifact = Artifact::Open(path);
    if (!artifact) return artifact.error();
    auto codec = TextCodec::Load(artifact.value());
    if (!codec) return codec.error();
    const std::shared_ptr<fsw_model> handle(new fsw_model, Free);
    const bool encoder = artifact.value().manifest().embedding.has_value();
    auto loaded = handle->executor.Run([&]() -> VoidResult {
      if (encoder)
        return Keep(Encoder::Load(std::move(artifact).value(), chosen), &handle->encoder);
      return Keep(Model::Load(std::move(artifact).value(), chosen), &handle->model);
    });
    if (!loaded) return loaded.error();
    handle->codec = std::make_unique<TextCodec>(std::move(codec).value());
    handle->info =
        encoder ? Info(*handle->encoder, *handle->codec) : Info(*handle->model, *handle->codec);
    *out = capi::HandOut(handle);
    return Ok{};
  });
}

void fsw_model_close(fsw_model* model) { capi::Close(model); }

fsw_status fsw_verify(const char* path) {
  return capi::Guard([&]() -> VoidResult {
    if (path == nullptr) return capi::NullArgument("path");
    auto artifact = Artifact::Open(path);
    if (!artifact) return artifact.error();
    return artifact.value().container().VerifyAll();
  });
}

const char* fsw_model_info(fsw_model* model) { return model == nullptr ? "" : model->info.c_str(); }

fsw_status fsw_tokenize(fsw_model* model, const char* text, size_t bytes,
                        int32_t add_special_tokens, const int32_t** ids, size_t* count) {
  return capi::Guard([&]() -> VoidResult {
    if (model == nullptr) return capi::NullArgument("model");
    if (text == nullptr && bytes > 0) return capi::NullArgument("text");
    if (ids == nullptr || count == nullptr) return capi::NullArgument("ids or count");
    auto encoded = model->codec->Encode({text, bytes}, add_special_tokens != 0);
    if (!encoded) return encoded.error();
    thread_local std::vector<int32_t> answer;
    answer = std::move(encoded).value();
    *ids = answer.data();
    *count = answer.size();
    return Ok{};
  });
}

fsw_status fsw_detokenize(fsw_model* model, const int32_t* ids, size_t count,
                          int32_t skip_special_tokens, const char** text, size_t* bytes) {
  return capi::Guard([&]() -> VoidResult {
    if (model == nullptr) return capi::NullArgument("model");
    if (ids == nullptr && count > 0) return capi::NullArgument("ids");
    if (text == nullptr || bytes == nullptr) return capi::NullArgument("text or bytes");
    auto decoded = model->codec->Decode({ids, count}, skip_special_tokens != 0);
    if (!decoded) return decoded.error();
    HandOutText(std::move(decoded).value(), text, bytes);
    return Ok{};
  });
}

fsw_status fsw_apply_chat(fsw_model* model, const char* const* roles, const char* const* contents,
                          size_t count, const char** text, size_t* bytes) {
  return capi::Guard([&]() -> VoidResult {
    if (model == nullptr) return capi::NullArgument("model");
    if (text == nullptr || bytes == nullptr) return capi::NullArgument("text or bytes");
    if (count > 0 && (roles == nullptr || contents == nullptr)) {
      return capi::NullArgument("roles or contents");
    }
    std::vector<ChatTurn> turns;
    for (size_t i = 0; i < count; ++i) {
      if (roles[i] == nullptr || contents[i] == nullptr) return capi::NullArgument("a message");
      turns.push_back({roles[i], contents[i]});
    }
    auto rendered = model->codec->ApplyChat(turns);
    if (!rendered) return rendered.error();
    HandOutText(std::move(rendered).value(), text, bytes);
    return Ok{};
  });
}
