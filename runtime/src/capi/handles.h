// What the opaque handles of the C interface hold, and the guard around every function.
#pragma once

#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <vector>

#include "base/executor.h"
#include "base/result.h"
#include "fretsaw/fretsaw.h"
#include "model/encoder.h"
#include "model/generation.h"
#include "model/session.h"
#include "model/text_codec.h"

struct fsw_model {
  std::mutex mutex;
  fretsaw::Executor executor;                 // outlives the model, whose code ran on it
  std::unique_ptr<fretsaw::Model> model;      // a decoder,
  std::unique_ptr<fretsaw::Encoder> encoder;  // or an encoder
  std::unique_ptr<fretsaw::TextCodec> codec;
  std::string info;
  std::vector<int32_t> ids;  // handed out by the last call
  std::string text;
};

struct fsw_session {
  fsw_model* owner = nullptr;
  std::unique_ptr<fretsaw::Session> session;
};

namespace fretsaw::capi {

std::string& LastError();

// Checks and copies what a caller asks for; `options` may be NULL. Errors: kUsage.
Result<GenerateRequest> ReadRequest(const int32_t* prompt, size_t count,
                                    const fsw_generate_options* options);

inline fsw_status Fail(const Error& error) {
  LastError() = error.message;
  return static_cast<fsw_status>(error.status);
}

// Runs `body` (-> VoidResult); nothing it throws crosses the interface.
template <typename Body>
fsw_status Guard(Body body) {
  try {
    LastError().clear();
    const VoidResult result = body();
    return result.ok() ? FSW_OK : Fail(result.error());
  } catch (const std::bad_alloc&) {
    return Fail({Status::kOutOfMemory, "out of memory"});
  } catch (const std::exception& e) {
    return Fail({Status::kInternal, std::string("unexpected: ") + e.what()});
  }
}

// Errors: kUnsupported when `model` is an encoder.
inline VoidResult NeedDecoder(const fsw_model& model) {
  if (model.model != nullptr) return Ok{};
  return Model::NoDecoder(model.encoder->artifact().manifest());
}

inline Error NullArgument(const char* name) {
  return {Status::kUsage, std::string(name) + " is NULL"};
}

}  // namespace fretsaw::capi
