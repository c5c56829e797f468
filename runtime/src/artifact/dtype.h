// Element types of tensors and planes.
#pragma once

#include <cstdint>

#include "artifact/fields.h"

namespace fretsaw {

enum class DType : uint8_t { kF32, kF16, kBF16, kI8, kI32, kI64 };

int64_t DTypeBytes(DType dtype);

// The type that `dtype` names. Errors: FieldError, UnsupportedField.
DType ReadDType(const Fields& fields);

}  // namespace fretsaw
