#include "model/tvm_program.h"

#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/extra/module.h>
#include <tvm/ffi/function.h>

#include <algorithm>
#include <exception>
#include <utility>
#include <vector>

#include "model/code_file.h"
#include "model/tvm_library.h"

namespace fretsaw {
namespace {

namespace ffi = tvm::ffi;

constexpr DLDevice kCpu{kDLCPU, 0};
constexpr DLDataType kInt32{kDLInt, 32, 1};
constexpr DLDataType kFloat16{kDLFloat, 16, 1};
constexpr DLDataType kFloat32{kDLFloat, 32, 1};

DLDataType ToDL(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return kFloat32;
    case DType::kF16:
      return kFloat16;
    case DType::kBF16:
      return {kDLUInt, 16, 1};  // kernels widen the bits themselves
    case DType::kI8:
      return {kDLInt, 8, 1};
    case DType::kI32:
      return kInt32;
    case DType::kI64:
      return {kDLInt, 64, 1};
  }
  return kFloat32;
}

// A tensor over memory that somebody else owns.
struct Borrow {
  void* data;
  void AllocData(DLTensor* tensor) const { tensor->data = data; }
  void FreeData(DLTensor*) const {}
};

ffi::Tensor View(const void* data, std::span<const int64_t> shape, DLDataType dtype) {
  return ffi::Tensor::FromNDAlloc(Borrow{const_cast<void*>(data)},
                                  ffi::ShapeView(shape.data(), shape.size()), dtype, kCpu);
}

// An argument whose memory and shape change from step to step. The tensor object is made once; a
// step writes its pointer, shape and strides in place, so it allocates nothing.
class Argument {
 public:
  Argument(size_t rank, DLDataType dtype)
      : tensor_(View(nullptr, std::vector<int64_t>(rank, 0), dtype)) {}

  void Set(const void* data, std::initializer_list<int64_t> shape) {
    Set(data, std::span<const int64_t>(shape.begin(), shape.size()));
  }
  // `first` are the dimensions before those of `rest`.
  void Set(const void* data, std::span<const int64_t> first, std::span<const int64_t> rest = {}) {
    auto* tensor =
        const_cast<ffi::TensorObj*>(static_cast<const ffi::TensorObj*>(tensor_.operator->()));
    tensor->data = const_cast<void*>(data);
    std::ranges::copy(first, tensor->shape);
    std::ranges::copy(rest, tensor->shape + first.size());
    int64_t stride = 1;
    for (size_t i = first.size() + rest.size(); i-- > 0;) {
      tensor->strides[i] = stride;
      stride *= tensor->shape[i];
    }
  }

  const ffi::Tensor& tensor() const { return tensor_; }

 private:
  ffi::Tensor tensor_;
};

// Planes of the cache; a step has all of them with the number of pages first.
std::vector<Argument> PlaneArguments(const KvInfo& kv) {
  std::vector<Argument> arguments;
  arguments.reserve(kv.planes.size());
  for (const PlaneInfo& plane : kv.planes) {
    arguments.emplace_back(plane.shape.size() + 1, ToDL(plane.dtype));
  }
  return arguments;
}

std::vector<ffi::Tensor> WeightViews(const Manifest& manifest, std::span<const uint8_t> weights) {
  std::vector<ffi::Tensor> views;
  views.reserve(manifest.tensors.size());
  for (const TensorInfo& info : manifest.tensors) {
    views.push_back(View(weights.data() + info.offset, info.shape, ToDL(info.dtype)));
  }
  return views;
}

// What a program returned, if it is f32 [rows, columns]; `what` names it.
Result<std::span<const float>> Checked(const ffi::Tensor& tensor, int64_t rows, int64_t columns,
                                       const char* what) {
  const DLDataType dtype = tensor.dtype();
  if (tensor.ndim() != 2 || tensor.size(0) != rows || tensor.size(1) != columns ||
      dtype.code != kDLFloat || dtype.bits != 32 || !tensor.IsContiguous()) {
    return Error{Status::kCorrupt, std::string("the program returned something else than f32 ") +
                                       what + " of shape [" + std::to_string(rows) + ", " +
                                       std::to_string(columns) + "]"};
  }
  return std::span<const float>(static_cast<const float*>(tensor.data_ptr()),
                                static_cast<size_t>(rows * columns));
}

class TvmEncoder : public EncodeProgram {
 public:
  TvmEncoder(ffi::Module library, ffi::Module vm, ffi::Function encode, const Manifest& manifest,
             std::span<const uint8_t> weights, int threads)
      : library_(std::move(library)),
        vm_(std::move(vm)),
        encode_(std::move(encode)),
        width_(manifest.embedding->width),
        threads_(threads),
        weights_(WeightViews(manifest, weights)) {
    for (const Argument* argument : {&tokens_, &positions_, &cu_}) {
      packed_.emplace_back(argument->tensor());
    }
    for (const ffi::Tensor& tensor : weights_) packed_.emplace_back(tensor);
  }

  Result<std::span<const float>> Encode(const EncodeArgs& a) override {
    if (auto ok = ConfigureTvmThreads(threads_); !ok) return ok.error();
    tokens_.Set(a.tokens.data(), {std::ssize(a.tokens)});
    positions_.Set(a.positions.data(), {std::ssize(a.positions)});
    cu_.Set(a.cu.data(), {std::ssize(a.cu)});
    try {
      out_ = ffi::Tensor();
      ffi::Any result;
      encode_.CallPacked(packed_.data(), static_cast<int32_t>(packed_.size()), &result);
      out_ = result.cast<ffi::Tensor>();
    } catch (const std::exception& e) {
      return Error{Status::kInternal, std::string("the encoder failed: ") + e.what()};
    }
    return Checked(out_, std::ssize(a.cu) - 1, width_, "embeddings");
  }

 private:
  // Order matters, as in TvmProgram.
  ffi::Module library_;
  ffi::Module vm_;
  ffi::Function encode_;
  int64_t width_;
  int threads_;
  Argument tokens_{1, kInt32}, positions_{1, kInt32}, cu_{1, kInt32};
  std::vector<ffi::Tensor> weights_;
  std::vector<ffi::AnyView> packed_;  // borrows from the arguments and weights_
  ffi::Tensor out_;
};

class TvmProgram : public Program {
 public:
  // `dense` runs the manifest's dense steps; without such steps it is not called.
  TvmProgram(ffi::Module library, ffi::Module vm, ffi::Function step, ffi::Function dense,
             const Manifest& manifest, std::span<const uint8_t> weights, int threads)
      : library_(std::move(library)),
        vm_(std::move(vm)),
        step_(std::move(step)),
        dense_(std::move(dense)),
        vocab_size_(manifest.model.vocab_size),
        kv_(manifest.kv),
        threads_(threads),
        planes_(PlaneArguments(kv_)),
        weights_(WeightViews(manifest, weights)) {
    for (const Argument* argument : {&tokens_, &positions_, &cu_, &rows_, &lens_, &table_}) {
      packed_.emplace_back(argument->tensor());
    }
    for (const Argument& plane : planes_) packed_.emplace_back(plane.tensor());
    for (const ffi::Tensor& tensor : weights_) packed_.emplace_back(tensor);
  }

  Result<std::span<const float>> Step(const StepArgs& a) override {
    // Cheap when this thread has its pool already.
    if (auto ok = ConfigureTvmThreads(threads_); !ok) return ok.error();
    tokens_.Set(a.tokens.data(), {std::ssize(a.tokens)});
    positions_.Set(a.positions.data(), {std::ssize(a.positions)});
    cu_.Set(a.cu.data(), {std::ssize(a.cu)});
    rows_.Set(a.rows.data(), {std::ssize(a.rows)});
    lens_.Set(a.lens.data(), {a.layers, a.batch, a.kv_heads});
    table_.Set(a.table.data(), {a.layers, a.batch, a.kv_heads, a.max_pages});
    for (size_t i = 0; i < planes_.size(); ++i) {
      planes_[i].Set(a.planes[i], {&a.pages, 1}, kv_.planes[i].shape);
    }
    try {
      logits_ =
          ffi::Tensor();  // before the call: the program may reuse this memory for the new ones
      ffi::Any result;
      const ffi::Function& entry = a.dense ? dense_ : step_;
      entry.CallPacked(packed_.data(), static_cast<int32_t>(packed_.size()), &result);
      logits_ = result.cast<ffi::Tensor>();
    } catch (const std::exception& e) {
      return Error{Status::kInternal, std::string("the step program failed: ") + e.what()};
    }
    return Checked(logits_, std::ssize(a.rows), vocab_size_, "logits");
  }

 private:
  // Order matters: tensors made by the program must be freed before the code that frees them.
  ffi::Module library_;
  ffi::Module vm_;
  ffi::Function step_, dense_;
  int64_t vocab_size_;
  KvInfo kv_;
  int threads_;
  Argument tokens_{1, kInt32}, positions_{1, kInt32}, cu_{1, kInt32}, rows_{1, kInt32};
  Argument lens_{3, kInt32}, table_{4, kInt32};
  std::vector<Argument> planes_;
  std::vector<ffi::Tensor> weights_;
  std::vector<ffi::AnyView> packed_;  // borrows from the arguments and weights_
  ffi::Tensor logits_;
};

}  // namespace

struct TvmCode::State {
  ffi::Module library;
  ffi::Module vm;
  ffi::Function step, dense;  // the same function where the program has no dense steps
};

TvmCode::TvmCode(std::unique_ptr<State> state) : state_(std::move(state)) {}
TvmCode::TvmCode(TvmCode&&) noexcept = default;
TvmCode& TvmCode::operator=(TvmCode&&) noexcept = default;
TvmCode::~TvmCode() = default;

Result<TvmCode> TvmCode::Load(std::span<const uint8_t> code, const ProgramInfo& program) {
  if (auto opened = OpenTvmRuntime(); !opened) return opened.error();
  auto file = CodeFile::Create(code);
  if (!file) return file.error();
  const auto fail = [](const std::string& what) {
    return Error{Status::kCorrupt, "cannot load the artifact's code: " + what};
  };
  try {
    // By name, not Module::LoadFromFile: that one picks the loader from the ending of the path, and
    // the path of a memory file has none.
    const auto load = ffi::Function::GetGlobalRequired("ffi.Module.load_from_file.so");
    ffi::Module library = load(file.value().path(), "so").cast<ffi::Module>();
    const auto load_executable = library->GetFunction("vm_load_executable");
    if (!load_executable.has_value()) return fail("it holds no Relax executable");
    ffi::Module vm = (*load_executable)().cast<ffi::Module>();
    constexpr int kPooledAllocator = 2;
    vm->GetFunction("vm_initialization").value()(static_cast<int>(kDLCPU), 0, kPooledAllocator);
    const auto step = vm->GetFunction(program.entry);
    if (!step.has_value()) return fail("it has no function '" + program.entry + "'");
    if (!program.dense) return TvmCode(std::make_unique<State>(State{library, vm, *step, *step}));
    const auto dense = vm->GetFunction(program.dense->entry);
    if (!dense.has_value()) return fail("it has no function '" + program.dense->entry + "'");
    return TvmCode(std::make_unique<State>(State{library, vm, *step, *dense}));
  } catch (const std::exception& e) {
    return fail(e.what());
  }
}

Result<std::unique_ptr<Program>> TvmCode::Bind(const Manifest& manifest,
                                               std::span<const uint8_t> weights, int threads) && {
  try {
    return std::unique_ptr<Program>(std::make_unique<TvmProgram>(
        state_->library, state_->vm, state_->step, state_->dense, manifest, weights, threads));
  } catch (const std::exception& e) {
    return Error{Status::kInternal, std::string("cannot bind the step program: ") + e.what()};
  }
}

Result<std::unique_ptr<EncodeProgram>> TvmCode::BindEncoder(const Manifest& manifest,
                                                            std::span<const uint8_t> weights,
                                                            int threads) && {
  try {
    return std::unique_ptr<EncodeProgram>(std::make_unique<TvmEncoder>(
        state_->library, state_->vm, state_->step, manifest, weights, threads));
  } catch (const std::exception& e) {
    return Error{Status::kInternal, std::string("cannot bind the encoder: ") + e.what()};
  }
}

}  // namespace fretsaw
