#include "artifact/dtype.h"

#include <string>

namespace fretsaw {

DType ReadDType(const Fields& fields) {
  const std::string name = fields.String("dtype", 64);
  if (name == "f32") return DType::kF32;
  if (name == "f16") return DType::kF16;
  if (name == "bf16") return DType::kBF16;
  if (name == "i8") return DType::kI8;
  if (name == "i32") return DType::kI32;
  if (name == "i64") return DType::kI64;
  throw UnsupportedField{fields.path() + ".dtype: '" + name +
                         "' is not one of f32, f16, bf16, i8, i32, i64"};
}

int64_t DTypeBytes(DType dtype) {
  switch (dtype) {
    case DType::kF32:
    case DType::kI32:
      return 4;
    case DType::kF16:
    case DType::kBF16:
      return 2;
    case DType::kI8:
      return 1;
    case DType::kI64:
      return 8;
  }
  return 0;
}

}  // namespace fretsaw
