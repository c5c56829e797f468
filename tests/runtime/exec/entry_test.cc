// A program of one entry over kernels in a library that the C compiler makes here: arguments,
// memory, parallel loops and errors, without any code of TVM's.
#include <doctest/doctest.h>

#include <array>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "exec/step_program.h"

namespace fretsaw {
namespace {

// twice: out[t, 4] = 2 * tensor[4] * tokens[t], a task for each row, scratch memory in each;
// pick: logits[r, 4] = x[rows[r]]; it fails where a row is 99.
constexpr const char* kKernels = R"(
#include <stdint.h>
#include <stddef.h>
typedef struct { void *data; int32_t device[2]; int32_t ndim; uint8_t code, bits; uint16_t lanes; int64_t *shape, *strides; uint64_t offset; } Tensor;
typedef struct { int32_t type; uint32_t padding; union { int64_t i; Tensor *t; } v; } Arg;
typedef struct { void *sync; int32_t tasks; } Env;
int (*__TVMBackendParallelLaunch)(int (*)(int, Env *, void *), void *, int);
void *(*__TVMBackendAllocWorkspace)(int, int, uint64_t, int, int);
int (*__TVMBackendFreeWorkspace)(int, int, void *);
void (*fretsaw_raise)(const char *, const char **, int32_t);
static int task(int id, Env *env, void *data) {
  const Arg *a = data;
  const int32_t *tokens = a[0].v.t->data; const float *w = a[1].v.t->data; float *out = a[2].v.t->data;
  int64_t rows = a[2].v.t->shape[0];
  for (int64_t t = id * rows / env->tasks; t < (id + 1) * rows / env->tasks; ++t) {
    float *s = __TVMBackendAllocWorkspace(1, 0, 64, 2, 32);
    if (((size_t)s) % 64) return -1;
    for (int i = 0; i < 4; ++i) s[i] = 2 * w[i] * tokens[t];
    for (int i = 0; i < 4; ++i) out[t * 4 + i] = s[i];
    __TVMBackendFreeWorkspace(1, 0, s);
  }
  return 0;
}
int32_t __tvm_ffi_twice(void *h, const Arg *a, int32_t n, Arg *r) {
  if (n != 3 || a[0].type != 7 || a[2].v.t->ndim != 2 || a[2].v.t->strides) return -1;
  return __TVMBackendParallelLaunch(task, (void *)a, 0);
}
int32_t __tvm_ffi_pick(void *h, const Arg *a, int32_t n, Arg *r) {
  const float *x = a[0].v.t->data; const int32_t *rows = a[1].v.t->data; float *out = a[3].v.t->data;
  if (a[2].type != 1 || a[2].v.i != -5) return -1;
  for (int64_t k = 0; k < a[3].v.t->shape[0]; ++k) {
    if (rows[k] == 99) { const char *parts[] = {"row ", 0, "99"}; fretsaw_raise("ValueError", parts, 3); return -1; }
    for (int i = 0; i < 4; ++i) out[k * 4 + i] = x[rows[k] * 4 + i];
  }
  return 0;
}
)";

constexpr const char* kProgram = R"({"version": 1, "entries": [{
  "name": "step", "symbols": ["R", "T"], "inputs": [0, 1], "outputs": [3],
  "slots": [{"T": 16}, {"R": 16}],
  "values": [{"name": "tokens", "dtype": "i32", "shape": [{"T": 1}]},
             {"name": "rows", "dtype": "i32", "shape": [{"R": 1}]},
             {"name": "x", "dtype": "f32", "shape": [{"T": 1}, 4], "slot": 0},
             {"name": "logits", "dtype": "f32", "shape": [{"R": 1}, 4], "slot": 1}],
  "launches": [{"kernel": "twice", "args": [["value", 0], ["tensor", 0], ["value", 2]], "made": 1},
               {"kernel": "pick", "args": [["value", 2], ["value", 1], ["int", -5], ["value", 3]], "made": 1}]}]})";

std::vector<uint8_t> Compiled() {
  char folder[] = "/tmp/fretsaw-kernels-XXXXXX";
  REQUIRE(mkdtemp(folder) != nullptr);
  const std::string base(folder);
  std::ofstream(base + "/k.c") << kKernels;
  const std::string command = "cc -shared -fPIC -O1 -o " + base + "/k.so " + base + "/k.c";
  REQUIRE(std::system(command.c_str()) == 0);
  std::ifstream file(base + "/k.so", std::ios::binary);
  std::vector<uint8_t> code((std::istreambuf_iterator<char>(file)), {});
  std::system(("rm -r " + base).c_str());
  return code;
}

struct Fixture {
  Fixture() {
    manifest.model.vocab_size = 4;
    manifest.program.section = "program";
    manifest.program.entry = "step";
    manifest.kv.layers = manifest.kv.kv_heads = 1;
    manifest.kv.page_tokens = 64;
    manifest.tensors.push_back({"w", DType::kF32, {4}, 0, 16});
  }

  Result<std::unique_ptr<Program>> Load(const std::string& program, int threads) const {
    auto code = StepCode::Load(program, Compiled(), manifest);
    if (!code) return code.error();
    const auto* bytes = reinterpret_cast<const uint8_t*>(weights.data());
    return std::move(code).value().Bind(manifest, {bytes, 16}, threads);
  }

  Manifest manifest;
  std::array<float, 4> weights{1, 2, 3, 4};
};

StepArgs Args(const std::vector<int32_t>& tokens, const std::vector<int32_t>& rows) {
  StepArgs args;
  args.tokens = args.positions = tokens;
  args.rows = rows;
  args.batch = 1;
  return args;
}

TEST_CASE_FIXTURE(Fixture, "launches run in order over memory that grows") {
  for (const int threads : {1, 3}) {
    auto program = Load(kProgram, threads);
    REQUIRE_MESSAGE(program.ok(), program.error().message);
    for (const int count : {3, 500, 1, 0, 40}) {
      std::vector<int32_t> tokens(static_cast<size_t>(count)), rows;
      for (int i = 0; i < count; ++i) tokens[static_cast<size_t>(i)] = 10 + i;
      for (int i = count - 1; i >= 0; i -= 7) rows.push_back(i);
      const auto logits = program.value()->Step(Args(tokens, rows));
      REQUIRE_MESSAGE(logits.ok(), logits.error().message);
      REQUIRE(logits.value().size() == rows.size() * 4);
      for (size_t r = 0; r < rows.size(); ++r) {
        for (size_t i = 0; i < 4; ++i) {
          CHECK(logits.value()[r * 4 + i] == 2 * weights[i] * static_cast<float>(10 + rows[r]));
        }
      }
    }
  }
}

TEST_CASE_FIXTURE(Fixture, "a kernel that fails is named, with its words") {
  auto program = Load(kProgram, 2);
  REQUIRE(program.ok());
  const auto failed = program.value()->Step(Args({1, 2}, {99}));
  REQUIRE_FALSE(failed.ok());
  CHECK(failed.error().message ==
        "launch 1 of entry 'step', kernel pick, failed: ValueError: row 99");
  CHECK(program.value()->Step(Args({1, 2}, {1})).ok());
}

TEST_CASE_FIXTURE(Fixture, "what does not fit is refused when it is loaded") {
  const auto message = [this](const std::string& from, const std::string& to) {
    std::string program = kProgram;
    program.replace(program.find(from), from.size(), to);
    const auto loaded = Load(program, 1);
    return loaded ? std::string() : loaded.error().message;
  };
  CHECK(message("\"pick\"", "\"pack\"").find("the code has no kernel 'pack'") != std::string::npos);
  CHECK(message("[\"tensor\", 0]", "[\"tensor\", 1]").find("no tensor 1") != std::string::npos);
  manifest.program.entry = "encode";
  CHECK(message("\"step\"", "\"step\"").find("names the entry 'encode'") != std::string::npos);
  manifest.program.entry = "step";
  const std::vector<uint8_t> junk(100, 7);
  CHECK(StepCode::Load(kProgram, junk, manifest)
            .error()
            .message.find("cannot load the artifact's code") == 0);
}

TEST_CASE_FIXTURE(Fixture, "an output of another shape than the model's is an error") {
  auto program = Load(kProgram, 1);
  manifest.model.vocab_size = 5;
  program = Load(kProgram, 1);
  REQUIRE(program.ok());
  CHECK(program.value()->Step(Args({1}, {0})).error().message.find("of shape [1, 5]") !=
        std::string::npos);
}

}  // namespace
}  // namespace fretsaw
