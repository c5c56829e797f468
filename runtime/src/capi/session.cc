#include <algorithm>

#include "capi/handles.h"
#include "model/generator.h"

using namespace fretsaw;  // NOLINT(build/namespaces): the whole file is a thin skin over it

Result<GenerateRequest> capi::ReadRequest(const int32_t* prompt, size_t count,
                                          const fsw_generate_options* options) {
  GenerateRequest request;
  request.prompt.assign(prompt, prompt + count);
  if (options == nullptr) return request;
  if (options->struct_bytes < sizeof *options) {
    return Error{Status::kUsage, "fsw_generate_options.struct_bytes is not set"};
  }
  request.max_new_tokens = options->max_new_tokens;
  request.sampling = {options->temperature,        options->top_k, options->top_p, options->min_p,
                      options->repetition_penalty, options->seed};
  request.ignore_eos = options->ignore_eos != 0;
  for (size_t i = 0; i < options->stop_count; ++i) {
    if (options->stop == nullptr || options->stop[i] == nullptr) {
      return capi::NullArgument("a stop string");
    }
    request.stop.push_back(options->stop[i]);
  }
  return request;
}

namespace {

// A session that a call works on; `alone` is false when another call does.
struct Use {
  explicit Use(fsw_session* s) : session(s->self), alone(!s->busy.exchange(true)) {}
  ~Use() {
    if (alone) session->busy = false;
  }
  Use(const Use&) = delete;
  Use& operator=(const Use&) = delete;

  const std::shared_ptr<fsw_session> session;  // may be closed meanwhile
  const bool alone;
};

Error InUse() {
  return {Status::kBusy,
          "the session is in use by another call, perhaps a generation that has not ended; end it "
          "first or take a session of its own"};
}

}  // namespace

fsw_status fsw_session_create(fsw_model* model, int64_t context, fsw_session** out) {
  return capi::Guard([&]() -> VoidResult {
    if (model == nullptr) return capi::NullArgument("model");
    if (out == nullptr) return capi::NullArgument("session");
    *out = nullptr;
    if (auto ok = capi::NeedDecoder(*model); !ok) return ok.error();
    auto session =
        capi::RunAlone(*model, [&] { return Session::Create(model->model.get(), context); });
    if (!session) return session.error();
    auto handle = std::make_shared<fsw_session>();
    handle->owner = model->self;
    handle->session = std::move(session).value();
    *out = capi::HandOut(std::move(handle));
    return Ok{};
  });
}

void fsw_session_close(fsw_session* session) { capi::Close(session); }

fsw_status fsw_session_reset(fsw_session* session) {
  return capi::Guard([&]() -> VoidResult {
    if (session == nullptr) return capi::NullArgument("session");
    Use use(session);
    if (!use.alone) return InUse();
    return capi::RunAlone(*session->owner, [&]() -> VoidResult {
      session->session->Reset();
      return Ok{};
    });
  });
}

int64_t fsw_session_length(const fsw_session* session) {
  return session == nullptr ? 0 : session->session->length();
}

uint64_t fsw_session_kv_bytes(const fsw_session* session) {
  return session == nullptr ? 0 : session->session->kv_bytes();
}

fsw_status fsw_forward(fsw_session* session, const int32_t* tokens, size_t count, int32_t rows,
                       float* logits, size_t logits_floats) {
  return capi::Guard([&]() -> VoidResult {
    if (session == nullptr) return capi::NullArgument("session");
    if (tokens == nullptr && count > 0) return capi::NullArgument("tokens");
    if (logits == nullptr) return capi::NullArgument("logits");
    if (rows != FSW_ROWS_LAST && rows != FSW_ROWS_ALL) {
      return Error{Status::kUsage, "rows is neither FSW_ROWS_LAST nor FSW_ROWS_ALL"};
    }
    const auto vocab = static_cast<size_t>(session->owner->model->manifest().model.vocab_size);
    const size_t wanted = rows == FSW_ROWS_ALL ? count : 1;
    if (logits_floats / vocab < wanted) {
      return Error{Status::kUsage, "logits has room for " + std::to_string(logits_floats) +
                                       " floats; " + std::to_string(wanted) + " rows of " +
                                       std::to_string(vocab) + " are wanted"};
    }
    Use use(session);
    if (!use.alone) return InUse();
    const auto copy = [&](std::span<const float> chunk, int64_t first_row) {
      const size_t at = rows == FSW_ROWS_ALL ? static_cast<size_t>(first_row) * vocab : 0;
      std::copy(chunk.begin(), chunk.end(), logits + at);
    };
    const LogitRows which = rows == FSW_ROWS_ALL ? LogitRows::kAll : LogitRows::kLast;
    return capi::RunAlone(*session->owner,
                          [&] { return session->session->Append({tokens, count}, which, copy); });
  });
}

fsw_status fsw_generate(fsw_session* session, const int32_t* prompt, size_t count,
                        const fsw_generate_options* options, fsw_on_token on_token, void* user,
                        fsw_generate_result* result) {
  return capi::Guard([&]() -> VoidResult {
    if (session == nullptr) return capi::NullArgument("session");
    if (prompt == nullptr && count > 0) return capi::NullArgument("prompt");
    auto request = capi::ReadRequest(prompt, count, options);
    if (!request) return request.error();
    OnToken forward;
    if (on_token != nullptr) {
      forward = [&](int32_t token, std::string_view text) {
        return on_token(user, token, text.data(), text.size()) != 0;
      };
    }
    Use use(session);
    if (!use.alone) return InUse();
    fsw_model& model = *session->owner;
    const RunStep run_step = [&](const std::function<VoidResult()>& step) {
      return capi::RunAlone(model, [&] { return step(); });
    };
    auto generated =
        Generate(session->session.get(), *model.codec, request.value(), forward, nullptr, run_step);
    if (!generated) return generated.error();
    if (result != nullptr) {
      const GenerateResult& g = generated.value();
      *result = {static_cast<int32_t>(g.finish), g.prefill_ms, g.decode_ms, g.decode_steps};
    }
    return Ok{};
  });
}
