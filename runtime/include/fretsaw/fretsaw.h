/* Fretsaw runtime, C interface.
 *
 * Loads an artifact (model.fsaw), runs it, generates text. Everything is a plain C type or an
 * opaque handle; nothing here throws, prints or exits.
 *
 * Errors: functions return FSW_OK (0) or a status; fsw_last_error() then has the words, for the
 * calling thread, until that thread's next call. The values are also the exit codes of fretsaw-run.
 * Ownership: a handle from *_open or *_create belongs to the caller and is ended by *_close.
 * Strings and arrays that functions hand out belong to the handle they came from, until its next
 * call. Threads: calls on one model, or on sessions of one model, are serialised by a lock inside
 * it, from whichever thread they come; the work itself, callbacks included, happens on a thread of
 * the model. Close all sessions of a model before the model.
 */
#ifndef FRETSAW_FRETSAW_H_
#define FRETSAW_FRETSAW_H_

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#error "Fretsaw's runtime is for Linux"
#endif
#define FSW_API __attribute__((visibility("default")))

#define FSW_VERSION_MAJOR 0
#define FSW_VERSION_MINOR 1
#define FSW_VERSION_PATCH 0

#ifdef __cplusplus
extern "C" {
#endif

typedef int32_t fsw_status; /* 0: ok; the list is in docs/runtime.md */
#define FSW_OK 0

typedef struct fsw_model fsw_model;
typedef struct fsw_session fsw_session;

/* Version of the library: major, minor, patch. */
FSW_API void fsw_version(int32_t version[3]);
/* Words of the calling thread's last error, "" when there was none. */
FSW_API const char* fsw_last_error(void);
/* Name of a status, e.g. "corrupt". */
FSW_API const char* fsw_status_name(fsw_status status);

typedef struct {
  size_t struct_bytes; /* sizeof(fsw_model_options): lets later versions add fields */
  int32_t threads;     /* 0: one per physical core */
  int32_t verify;      /* not 0: check the digest of every section */
  const char* variant; /* NULL or "": the best one that this machine runs */
} fsw_model_options;

/* Opens an artifact and loads its code. `options` may be NULL. */
FSW_API fsw_status fsw_model_open(const char* path, const fsw_model_options* options,
                                  fsw_model** model);
FSW_API void fsw_model_close(fsw_model* model);
/* Checks structure and every digest; loads no code. */
FSW_API fsw_status fsw_verify(const char* path);
/* For compilers: whether this runtime can read a tokenizer.json, or a Jinja chat template. */
FSW_API fsw_status fsw_check_tokenizer(const char* json, size_t bytes);
FSW_API fsw_status fsw_check_chat_template(const char* source, size_t bytes);
/* The manifest as JSON text, and what was chosen at load: {"manifest": ..., "variant": "...",
 * "threads": n, "weights_bytes": n, "has_tokenizer": bool, "has_chat_template": bool}. */
FSW_API const char* fsw_model_info(fsw_model* model);

/* Ids of UTF-8 text of `bytes` bytes. */
FSW_API fsw_status fsw_tokenize(fsw_model* model, const char* text, size_t bytes,
                                int32_t add_special_tokens, const int32_t** ids, size_t* count);
FSW_API fsw_status fsw_detokenize(fsw_model* model, const int32_t* ids, size_t count,
                                  int32_t skip_special_tokens, const char** text, size_t* bytes);
/* The prompt of a conversation: `roles` and `contents` are `count` zero-terminated strings. */
FSW_API fsw_status fsw_apply_chat(fsw_model* model, const char* const* roles,
                                  const char* const* contents, size_t count, const char** text,
                                  size_t* bytes);

/* A sequence with a KV cache for `context` tokens; 0: the model's context. */
FSW_API fsw_status fsw_session_create(fsw_model* model, int64_t context, fsw_session** session);
FSW_API void fsw_session_close(fsw_session* session);
/* Forgets all tokens. */
FSW_API fsw_status fsw_session_reset(fsw_session* session);
FSW_API int64_t fsw_session_length(const fsw_session* session); /* tokens appended */
FSW_API uint64_t fsw_session_kv_bytes(const fsw_session* session);

enum { FSW_ROWS_LAST = 0, FSW_ROWS_ALL = 1 };

/* Appends `count` tokens and writes their logits, f32, row major: [1, vocab] or [count, vocab] as
 * `rows` says. `logits_floats` is the room in `logits`; too little is a usage error before anything
 * runs. On other errors the session must be reset. */
FSW_API fsw_status fsw_forward(fsw_session* session, const int32_t* tokens, size_t count,
                               int32_t rows, float* logits, size_t logits_floats);

typedef struct {
  size_t struct_bytes; /* sizeof(fsw_generate_options) */
  int64_t max_new_tokens;
  double temperature;        /* 0: greedy */
  int64_t top_k;             /* 0: all */
  double top_p;              /* 1: all */
  double min_p;              /* 0: all */
  double repetition_penalty; /* 1: off */
  uint64_t seed;
  int32_t ignore_eos;
  const char* const* stop; /* zero-terminated strings */
  size_t stop_count;
} fsw_generate_options;

typedef struct {
  int32_t finish; /* 0 stop, 1 length, 2 stop string, 3 cancelled */
  double prefill_ms;
  double decode_ms;
  int64_t decode_steps; /* tokens that decode_ms stands for */
} fsw_generate_result;

/* Called for every token with the text that became certain (UTF-8, `bytes` may be 0, not zero
 * terminated). Text held back for a stop string may come last with token -1. Return 0 to stop. Must
 * not call into the same model. */
typedef int32_t (*fsw_on_token)(void* user, int32_t token, const char* text, size_t bytes);

/* Appends the prompt and generates. `options`, `on_token` and `result` may be NULL. */
FSW_API fsw_status fsw_generate(fsw_session* session, const int32_t* prompt, size_t count,
                                const fsw_generate_options* options, fsw_on_token on_token,
                                void* user, fsw_generate_result* result);

#ifdef __cplusplus
}
#endif
#endif /* FRETSAW_FRETSAW_H_ */
