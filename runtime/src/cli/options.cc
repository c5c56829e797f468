#include "cli/options.h"

#include <CLI/CLI.hpp>
#include <string_view>

namespace fretsaw::cli {
namespace {

constexpr const char* kExamples = R"(Examples:
  fretsaw-run model.fsaw --prompt "The capital of France is" --max-new-tokens 40
  fretsaw-run model.fsaw --chat --system "Answer briefly." --prompt "What is a tensor?"
  fretsaw-run model.fsaw --prompt-file notes.txt --temperature 0.8 --top-p 0.95 --seed 7
  fretsaw-run model.fsaw --ids 1,504,3575 --json
  fretsaw-run model.fsaw --batch prompts.jsonl --out results.jsonl --kv-memory 2GB
  fretsaw-run encoder.fsaw --embed texts.txt --out vectors.npy
  fretsaw-run model.fsaw --bench --prefill 512 --decode 64 --threads 2 --json
  fretsaw-run model.fsaw --verify

Exit codes: 0 ok, 2 usage, 3 file not found, 4 not an artifact, 5 newer version, 6 truncated,
7 corrupt, 8 processor lacks a feature, 9 bad input, 10 prompt too long, 11 unsupported,
12 out of memory, 13 input or output failed, 15 results in use by another process, 20 lines of a
batch failed, 130 interrupted, 1 a bug in Fretsaw.)";

void AddInput(CLI::App* app, Options* o) {
  auto* prompt =
      app->add_option("--prompt,-p", o->prompt, "Text to continue; - reads standard input");
  auto* file = app->add_option("--prompt-file,-f", o->prompt_file,
                               "File with the prompt; - reads standard input");
  auto* ids =
      app->add_option("--ids", o->ids, "Token ids instead of text, separated by commas or spaces");
  prompt->excludes(file)->excludes(ids);
  file->excludes(ids);
  app->add_flag("--chat", o->chat, "Put the prompt into the model's chat template")->excludes(ids);
  app->add_option("--system", o->system, "System message, with --chat")->needs("--chat");
}

void AddGeneration(CLI::App* app, Options* o) {
  app->add_option("--max-new-tokens,-n", o->max_new_tokens, "Most tokens to generate")
      ->capture_default_str();
  app->add_option("--stop", o->stop, "End before this text; may be repeated")
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
      ->expected(1)
      ->allow_extra_args(false);
  app->add_option("--temperature,-t", o->sampling.temperature, "0 is greedy")
      ->capture_default_str();
  app->add_option("--top-k", o->sampling.top_k, "Draw from the k most likely tokens; 0: all")
      ->capture_default_str();
  app->add_option("--top-p", o->sampling.top_p, "Draw from the most likely tokens that sum to this")
      ->capture_default_str();
  app->add_option("--min-p", o->sampling.min_p, "Drop tokens under this share of the best one")
      ->capture_default_str();
  app->add_option("--repetition-penalty", o->sampling.repetition_penalty, "Over 1: repeat less")
      ->capture_default_str();
  app->add_option("--seed", o->sampling.seed, "Seed of the draws")->capture_default_str();
  app->add_flag("--ignore-eos", o->ignore_eos, "Go on after the end-of-sequence token");
}

void AddMachine(CLI::App* app, Options* o) {
  app->add_option("--context", o->context, "Tokens of KV cache; default: prompt + max-new-tokens");
  app->add_option("--threads", o->threads, "Threads; default: physical cores")
      ->check(CLI::Range(1, 1024));
  app->add_option("--cpu", o->cpu,
                  "Code variant, e.g. x86-64-v3; default: the best this machine runs");
  app->add_flag("--verify", o->verify, "Check every digest first; without a prompt, only that");
}

void AddBatch(CLI::App* app, Options* o) {
  auto* batch = app->add_option("--batch", o->batch,
                                "File with a request a line, as JSON; - reads standard input");
  auto* out = app->add_option("--out", o->out,
                              "File for the results, with --batch; goes on where it ends. "
                              "NumPy file for the vectors, with --embed");
  batch->needs(out);
  app->add_option("--embed", o->embed,
                  "File with a text a line, to get a vector for each; - reads standard input")
      ->needs(out)
      ->excludes(batch);
  app->add_option("--max-batch-tokens", o->max_batch_tokens, "Most tokens of a step, with --batch")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 30));
  app->add_option("--max-sequences", o->max_sequences, "Most requests at once, with --batch")
      ->capture_default_str()
      ->check(CLI::Range(1, 4096));
  app->add_option("--kv-memory", o->kv_memory,
                  "Bytes of KV cache, with --batch, e.g. 2GB; default: 1GB, or one whole context")
      ->transform(CLI::AsSizeValue(false));
}

void AddOutput(CLI::App* app, Options* o) {
  app->add_flag("--json", o->json, "Print one JSON object instead of streaming text");
  app->add_flag("--quiet,-q", o->quiet, "No summary on standard error");
  app->add_flag("--bench", o->bench, "Measure prefill and decode instead of answering a prompt");
  app->add_option("--prefill", o->prefill, "Tokens to prefill, with --bench")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 30));
  app->add_option("--decode", o->decode, "Tokens to decode, with --bench")
      ->capture_default_str()
      ->check(CLI::Range(1, 1 << 30));
  app->add_option("--repeat", o->repeat, "Measured runs, with --bench")
      ->capture_default_str()
      ->check(CLI::Range(1, 10000));
}

VoidResult CheckTogether(const Options& o) {
  if (o.out && !o.batch && !o.embed) {
    return Error{Status::kUsage, "--out is the file for the results of --batch or --embed"};
  }
  if (o.embed && (o.bench || o.has_prompt())) {
    return Error{Status::kUsage,
                 "--embed reads its texts from a file; leave out --prompt, --prompt-file, --ids "
                 "and --bench"};
  }
  if (o.embed && (o.chat || o.context || o.kv_memory || !o.stop.empty())) {
    return Error{Status::kUsage,
                 "--embed generates nothing; leave out --chat, --stop, --context and --kv-memory"};
  }
  if (o.batch && (o.bench || o.has_prompt())) {
    return Error{Status::kUsage,
                 "--batch reads its prompts from a file; leave out --prompt, --prompt-file, --ids "
                 "and --bench"};
  }
  if (o.bench && o.has_prompt()) {
    return Error{Status::kUsage,
                 "--bench makes its own prompt; leave out --prompt, --prompt-file and --ids"};
  }
  if (!o.bench && !o.verify && !o.batch && !o.embed && !o.has_prompt()) {
    return Error{Status::kUsage,
                 "no prompt: give --prompt TEXT, --prompt-file FILE, --ids LIST, --batch FILE, "
                 "--embed FILE, "
                 "or --bench"};
  }
  if (o.context && *o.context < 1) {
    return Error{Status::kUsage, "context: " + std::to_string(*o.context) +
                                     " is impossible; it must be at least 1"};
  }
  if (o.max_new_tokens < 1) {
    return Error{Status::kUsage, "max-new-tokens: " + std::to_string(o.max_new_tokens) +
                                     " is impossible; it must be at least 1"};
  }
  return CheckSampling(o.sampling);
}

}  // namespace

Result<Parsed> ParseOptions(int argc, const char* const* argv) {
  Options options;
  CLI::App app("Generate text from a Fretsaw artifact.", "fretsaw-run");
  app.footer(kExamples);
  app.set_version_flag("--version", std::string("fretsaw-run ") + FRETSAW_VERSION);
  app.add_option("artifact", options.artifact, "The compiled model, model.fsaw")->required();
  AddInput(&app, &options);
  AddGeneration(&app, &options);
  AddMachine(&app, &options);
  AddBatch(&app, &options);
  AddOutput(&app, &options);
  try {
    app.parse(argc, argv);
  } catch (const CLI::CallForHelp&) {
    return Parsed{std::nullopt, app.help()};
  } catch (const CLI::CallForVersion& version) {
    return Parsed{std::nullopt, std::string(version.what()) + "\n"};
  } catch (const CLI::ParseError& e) {
    return Error{Status::kUsage, std::string(e.what()) + "; see fretsaw-run --help"};
  }
  if (auto ok = CheckTogether(options); !ok) return ok.error();
  return Parsed{options, {}};
}

bool WantsJson(int argc, const char* const* argv) {
  for (int i = 1; i < argc; ++i) {
    if (std::string_view(argv[i]) == "--json") return true;
  }
  return false;
}

}  // namespace fretsaw::cli
