// CodeFile: the bytes are there under a name that no other file of the process had.
#include "model/code_file.h"

#include <doctest/doctest.h>

#include <fstream>
#include <iterator>
#include <set>

namespace fretsaw {
namespace {

TEST_CASE("code file: every one has its own name, also when the descriptor is the same") {
  std::set<std::string> names;
  for (uint8_t i = 0; i < 40; ++i) {
    const std::vector<uint8_t> code(10, i);
    auto file = CodeFile::Create(code);  // closed in each turn: the number comes again
    REQUIRE(file.ok());
    CHECK(names.insert(file.value().path()).second);
    std::ifstream in(file.value().path(), std::ios::binary);
    const std::string back(std::istreambuf_iterator<char>(in), {});
    CHECK(back == std::string(10, static_cast<char>(i)));
  }
}

}  // namespace
}  // namespace fretsaw
