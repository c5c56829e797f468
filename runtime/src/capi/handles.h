// What the opaque handles of the C interface hold, and the guard around every function.
#pragma once

#include <unistd.h>

#include <atomic>
#include <exception>
#include <memory>
#include <mutex>
#include <new>
#include <string>
#include <type_traits>
#include <utility>

#include "base/executor.h"
#include "base/result.h"
#include "fretsaw/fretsaw.h"
#include "model/encoder.h"
#include "model/generation.h"
#include "model/session.h"
#include "model/text_codec.h"

// Each handle holds itself until its caller closes it. Calls on their way hold it too, and sessions
// and batches hold their model: whatever is closed first, nothing goes before its last user.
struct fsw_model {
  std::shared_ptr<fsw_model> self;
  const pid_t process = getpid();             // the one that has the model's threads
  std::mutex mutex;                           // of steps; the codec is immutable and needs none
  fretsaw::Executor executor;                 // outlives the model, whose code ran on it
  std::unique_ptr<fretsaw::Model> model;      // a decoder,
  std::unique_ptr<fretsaw::Encoder> encoder;  // or an encoder
  std::unique_ptr<fretsaw::TextCodec> codec;
  std::string info;
};

struct fsw_session {
  std::shared_ptr<fsw_session> self;
  std::shared_ptr<fsw_model> owner;
  std::unique_ptr<fretsaw::Session> session;
  std::atomic<bool> busy{false};  // with a call that appends to it or resets it
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

// What a caller gets of a new handle, to give it back to Close.
template <typename Handle>
Handle* HandOut(std::shared_ptr<Handle> handle) {
  handle->self = handle;
  return handle.get();
}

template <typename Handle>
void Close(Handle* handle) {
  if (handle != nullptr) std::exchange(handle->self, nullptr).reset();
}

// Keeps a handle while a call uses it.
template <typename Handle>
std::shared_ptr<Handle> Hold(Handle* handle) {
  return handle == nullptr ? nullptr : handle->self;
}

// Errors: kUsage in a process that was forked from the model's: none of its threads are there.
inline VoidResult SameProcess(const fsw_model& model) {
  if (getpid() == model.process) return Ok{};
  return Error{Status::kUsage,
               "the model was opened before this process was forked from another; open it in the "
               "process that runs it"};
}

// Runs `work` (-> a Result) on the model's thread while no other call does. Errors: its, and
// SameProcess's.
template <typename Work>
std::invoke_result_t<Work> RunAlone(fsw_model& model, Work work) {
  if (auto ok = SameProcess(model); !ok) return ok.error();
  const std::lock_guard lock(model.mutex);
  return model.executor.Run(std::move(work));
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
