// ChooseVariant: best first, by name, and what a machine lacks.
#include "artifact/variant.h"

#include <doctest/doctest.h>

#include "base/cpu.h"

namespace fretsaw {
namespace {

const std::vector<VariantInfo> kVariants = {
    {"llvm-x86-64-v4", "code/4", {"avx2", "avx512f"}},
    {"llvm-x86-64-v3", "code/3", {"avx2"}},
};

TEST_CASE("variant: the first that the machine runs") {
  CHECK(ChooseVariant(kVariants, {"avx2", "avx512f"}).value() == 0);
  CHECK(ChooseVariant(kVariants, {"avx2"}).value() == 1);
}

TEST_CASE("variant: an option overrides, with or without the prefix") {
  CHECK(ChooseVariant(kVariants, {"avx2", "avx512f"}, "llvm-x86-64-v3").value() == 1);
  CHECK(ChooseVariant(kVariants, {"avx2", "avx512f"}, "x86-64-v3").value() == 1);
}

TEST_CASE("variant: refusals name what is missing") {
  auto none = ChooseVariant(kVariants, {"sse3"});
  CHECK(none.error().status == Status::kUnsupportedCpu);
  CHECK(none.error().message ==
        "this processor cannot run the artifact: llvm-x86-64-v4 needs avx2, avx512f; "
        "llvm-x86-64-v3 needs avx2; compile it with --cpu for this machine");
  CHECK(ChooseVariant(kVariants, {"avx2"}, "x86-64-v4").error().status == Status::kUnsupportedCpu);
  CHECK(ChooseVariant(kVariants, {"avx2"}, "arm").error().status == Status::kUsage);
}

TEST_CASE("cpu: what is found agrees with the compiler's own detection") {
  CHECK(CpuFeatures().contains("avx2") == static_cast<bool>(__builtin_cpu_supports("avx2")));
  CHECK(CpuFeatures().contains("fma") == static_cast<bool>(__builtin_cpu_supports("fma")));
  CHECK(CpuFeatures().contains("bmi2") == static_cast<bool>(__builtin_cpu_supports("bmi2")));
  CHECK(CpuFeatures().contains("avx512f") == static_cast<bool>(__builtin_cpu_supports("avx512f")));
  CHECK(CpuFeatures().contains("avx512vnni") ==
        static_cast<bool>(__builtin_cpu_supports("avx512vnni")));
  CHECK(PhysicalCores() >= 1);
}

}  // namespace
}  // namespace fretsaw
