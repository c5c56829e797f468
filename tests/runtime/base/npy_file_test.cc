// NpyFile: the bytes NumPy reads, and that a file is whole or not there.
#include "base/npy_file.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <utility>

namespace fretsaw {
namespace {

namespace fs = std::filesystem;

struct Folder {
  Folder() {
    char name[] = "/tmp/fretsaw-npy-XXXXXX";
    REQUIRE(mkdtemp(name) != nullptr);
    path = name;
  }
  ~Folder() { fs::remove_all(path); }
  std::string File(const char* name) const { return (path / name).string(); }
  fs::path path;
};

std::string ReadAll(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

NpyFile Make(const std::string& path, int64_t columns) {
  auto made = NpyFile::Create(path, columns);
  REQUIRE(made.ok());
  return std::move(made).value();
}

TEST_CASE("npy: header and rows") {
  const Folder folder;
  const std::string path = folder.File("v.npy");
  NpyFile file = Make(path, 2);
  const float rows[] = {1.0f, 2.0f, 3.0f, 4.0f};
  REQUIRE(file.Append(rows).ok());
  REQUIRE(file.Append({}).ok());
  REQUIRE(file.Append(std::span(rows).first(2)).ok());
  CHECK(file.rows() == 3);
  CHECK_FALSE(fs::exists(path));
  REQUIRE(file.Finish().ok());
  const std::string bytes = ReadAll(path);
  REQUIRE(bytes.size() == 128 + 6 * sizeof(float));
  CHECK(bytes.substr(0, 10) == std::string("\x93NUMPY\x01\x00\x76\x00", 10));
  const std::string text = "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 2), }";
  CHECK(bytes.substr(10, text.size()) == text);
  CHECK(bytes[127] == '\n');
  float back[6];
  std::copy_n(bytes.data() + 128, sizeof back, reinterpret_cast<char*>(back));
  CHECK(std::vector<float>(back, back + 6) == std::vector<float>{1, 2, 3, 4, 1, 2});
  CHECK(std::distance(fs::directory_iterator(folder.path), {}) == 1);
}

TEST_CASE("npy: without Finish nothing is there, and an older file stays") {
  const Folder folder;
  const std::string path = folder.File("v.npy");
  std::ofstream(path) << "old";
  {
    NpyFile file = Make(path, 1);
    const NpyFile moved = std::move(file);
    CHECK(fs::exists(path + ".part"));
  }
  CHECK_FALSE(fs::exists(path + ".part"));
  CHECK(ReadAll(path) == "old");
}

TEST_CASE("npy: what a killed process left is overwritten") {
  const Folder folder;
  const std::string path = folder.File("v.npy");
  std::ofstream(path + ".part") << std::string(1000, 'x');
  NpyFile file = Make(path, 1);
  REQUIRE(file.Finish().ok());
  CHECK(ReadAll(path).size() == 128);
}

TEST_CASE("npy: refusals") {
  const Folder folder;
  const std::string path = folder.File("v.npy");
  const NpyFile first = Make(path, 1);
  auto second = NpyFile::Create(path, 1);
  REQUIRE_FALSE(second.ok());
  CHECK(second.error().status == Status::kBusy);
  CHECK(second.error().message == "'" + path + "' is being written by another process");
  auto device = NpyFile::Create("/dev/null", 1);
  REQUIRE_FALSE(device.ok());
  CHECK(device.error().status == Status::kUsage);
  auto nowhere = NpyFile::Create(folder.File("absent/v.npy"), 1);
  REQUIRE_FALSE(nowhere.ok());
  CHECK(nowhere.error().status == Status::kIo);
  CHECK(nowhere.error().message ==
        "cannot write '" + folder.File("absent/v.npy") + "': No such file or directory");
}

}  // namespace
}  // namespace fretsaw
