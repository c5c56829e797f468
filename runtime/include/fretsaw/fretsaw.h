/* Fretsaw runtime, C interface.
 *
 * Loads an artifact (model.fsaw), runs it, generates text or embeds texts. Everything is a plain C
 * type or an opaque handle; nothing here throws, prints or exits.
 *
 * Errors: functions return FSW_OK (0) or a status; fsw_last_error() then has the words, for the
 * calling thread, until that thread's next call. The values are also the exit codes of fretsaw-run.
 * Ownership: a handle from *_open or *_create belongs to the caller and is ended by *_close.
 * Strings and arrays that functions hand out belong to the calling thread, until that thread's next
 * call of the same function (fsw_detokenize and fsw_apply_chat count as one); those of
 * fsw_model_info belong to the model. Threads: any call may come from any thread, but a handle's
 * *_close must be its last. Steps of one model run one at a time, on a thread of the model; text
 * functions wait for nobody, and callbacks come on the calling thread, between steps, without a
 * lock. A session takes one call at a time: a second one gets the status busy.
 * Closing: sessions and batches keep their model, and a call keeps its handle. What is closed while
 * something else uses it is freed when the last user is gone; a model that was closed is only used
 * by its sessions and batches. Forks: a model runs only in the process that opened it; in a forked
 * one its steps give the status usage.
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

/* Numbers in a vector of an encoder; 0: the model is a decoder. Sessions and generation need a
 * decoder, embedding needs an encoder; the other kind gives the status unsupported. */
FSW_API int64_t fsw_embedding_width(const fsw_model* model);
/* One vector for each of `count` texts of token ids, special tokens included: text i has the ids
 * from offsets[i] to offsets[i + 1]. Writes f32 [count, width], row major; `vector_floats` is the
 * room in `vectors`. A text's vector is the same bits alone and beside any others. Errors:
 * bad_input (an id outside the vocabulary), prompt_too_long; what is in `vectors` is then
 * undefined. */
FSW_API fsw_status fsw_embed(fsw_model* model, const int32_t* ids, const int64_t* offsets,
                             size_t count, float* vectors, size_t vector_floats);
/* The same for UTF-8 texts, tokenized with special tokens. Texts over the model's context are cut
 * to it; *truncated (may be NULL) is how many were. Errors name the text, counted from 0. */
FSW_API fsw_status fsw_embed_texts(fsw_model* model, const char* const* texts, const size_t* bytes,
                                   size_t count, float* vectors, size_t vector_floats,
                                   size_t* truncated);

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
 * terminated). Text held back for a stop string may come last with token -1. Return 0 to stop. May
 * call anything but what appends to this session or resets it. */
typedef int32_t (*fsw_on_token)(void* user, int32_t token, const char* text, size_t bytes);

/* Appends the prompt and generates. `options`, `on_token` and `result` may be NULL. */
FSW_API fsw_status fsw_generate(fsw_session* session, const int32_t* prompt, size_t count,
                                const fsw_generate_options* options, fsw_on_token on_token,
                                void* user, fsw_generate_result* result);

/* Many sequences at once: requests are submitted, steps run all of them together, and what has
 * ended is taken. A request's tokens are those that it gets alone. */
typedef struct fsw_batch fsw_batch;

typedef struct {
  size_t struct_bytes;      /* sizeof(fsw_batch_options) */
  int64_t context;          /* tokens of one sequence; 0: the model's context */
  int64_t max_batch_tokens; /* of one step, at most the program's chunk; 0: as many as it takes */
  int64_t max_sequences;    /* running at once; 0: 64 */
  int64_t max_queue;        /* waiting to run; 0: 256 */
  uint64_t kv_bytes;        /* of all KV pages; 0: 1 GiB, or one context if that is more */
} fsw_batch_options;

typedef struct {
  size_t struct_bytes; /* sizeof(fsw_batch_result), set by the caller */
  int64_t id;          /* 0: nothing has ended that was not taken yet */
  fsw_status status;   /* not 0: `error` says why, and there are no tokens */
  const char* error;   /* "" without one */
  const int32_t* tokens;
  size_t token_count;
  const char* text; /* not zero terminated */
  size_t text_bytes;
  int32_t finish; /* as in fsw_generate_result, or 4 deadline */
  int64_t prompt_tokens;
  double queue_ms, ttft_ms, total_ms; /* from submission: start, first token (0: none), end */
} fsw_batch_result;

/* `options` may be NULL. */
FSW_API fsw_status fsw_batch_create(fsw_model* model, const fsw_batch_options* options,
                                    fsw_batch** batch);
/* Forgets what has not ended. */
FSW_API void fsw_batch_close(fsw_batch* batch);
/* Queues a request; `timeout_ms` under 0: none. Errors: of the prompt and options, out_of_memory
 * (it could never run), busy (the queue is full). `options` may be NULL. */
FSW_API fsw_status fsw_batch_submit(fsw_batch* batch, const int32_t* prompt, size_t count,
                                    const fsw_generate_options* options, double timeout_ms,
                                    int64_t* id);
/* Ends a request at the next step with the tokens that it has; ignored when it has ended. */
FSW_API fsw_status fsw_batch_cancel(fsw_batch* batch, int64_t id);
/* Runs one step; *worked is 0 when there was nothing to do. */
FSW_API fsw_status fsw_batch_step(fsw_batch* batch, int32_t* worked);
typedef struct {
  size_t struct_bytes; /* sizeof(fsw_batch_stats), set by the caller */
  int64_t waiting, running, steps;
  int64_t prompt_tokens, shared_tokens, new_tokens; /* computed, found in the cache, generated */
  int64_t pages, used_pages, peak_used_pages;       /* KV pages: all, of running sequences, most */
  uint64_t page_bytes;
} fsw_batch_stats;

FSW_API fsw_status fsw_batch_get_stats(fsw_batch* batch, fsw_batch_stats* stats);
/* Takes one that has ended, in order of ending; its strings and tokens live until the calling
 * thread's next call of this function. */
FSW_API fsw_status fsw_batch_next(fsw_batch* batch, fsw_batch_result* result);

#ifdef __cplusplus
}
#endif
#endif /* FRETSAW_FRETSAW_H_ */
