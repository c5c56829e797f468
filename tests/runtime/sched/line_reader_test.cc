// LineReader: lines of any length, with and without an end, across the edges of its buffer.
#include "sched/line_reader.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <cstdio>
#include <string>
#include <vector>

namespace fretsaw {
namespace {

// A file that is gone at the end.
struct File {
  explicit File(const std::string& text) {
    const int fd = mkstemp(path.data());
    REQUIRE(write(fd, text.data(), text.size()) == std::ssize(text));
    close(fd);
  }
  ~File() { std::remove(path.c_str()); }
  std::string path = "/tmp/fretsaw-lines-XXXXXX";
};

std::vector<Line> Lines(const std::string& text, size_t max_bytes = 100) {
  const File file(text);
  auto reader = LineReader::Open(file.path, max_bytes);
  REQUIRE(reader.ok());
  std::vector<Line> lines;
  for (;;) {
    auto line = reader.value().Next();
    REQUIRE(line.ok());
    if (!line.value()) return lines;
    lines.push_back(*line.value());
    CHECK(lines.back().number == std::ssize(lines));
  }
}

TEST_CASE("lines: ends and empty ones") {
  CHECK(Lines("").empty());
  CHECK(Lines("\n").size() == 1);
  const auto lines = Lines("a\n\nb");
  REQUIRE(lines.size() == 3);
  CHECK(lines[0].text == "a");
  CHECK(lines[1].text.empty());
  CHECK(lines[1].complete);
  CHECK(lines[2].text == "b");
  CHECK_FALSE(lines[2].complete);
}

TEST_CASE("lines: a long one is cut, counted and passed over") {
  for (const size_t bytes :
       {size_t{100}, size_t{101}, size_t{65535}, size_t{65536}, size_t{200000}}) {
    const auto lines = Lines(std::string(bytes, 'x') + "\nnext\n");
    REQUIRE(lines.size() == 2);
    CHECK(lines[0].bytes == bytes);
    CHECK(lines[0].text == std::string(100, 'x'));
    CHECK(lines[1].text == "next");
  }
}

TEST_CASE("lines: zero bytes are bytes") {
  CHECK(Lines(std::string("a\0b\n", 4))[0].text == std::string("a\0b", 3));
}

TEST_CASE("lines: what cannot be opened or read") {
  CHECK(LineReader::Open("/no/such/file", 9).error().message ==
        "cannot open '/no/such/file': No such file or directory");
  auto folder = LineReader::Open("/tmp", 9);
  REQUIRE(folder.ok());
  CHECK(folder.value().Next().error().message == "cannot read '/tmp': Is a directory");
}

TEST_CASE("lines: knows when it would wait for a writer") {
  int ends[2];
  REQUIRE(pipe(ends) == 0);
  const std::string path = "/proc/self/fd/" + std::to_string(ends[0]);
  auto opened = LineReader::Open(path, 100);
  REQUIRE(opened.ok());
  LineReader& reader = opened.value();
  CHECK(reader.WouldWait(0));
  REQUIRE(write(ends[1], "a\nb\nc", 5) == 5);
  CHECK_FALSE(reader.WouldWait(0));
  CHECK(reader.Next().value()->text == "a");
  CHECK_FALSE(reader.WouldWait(0));  // b is in the buffer
  CHECK(reader.Next().value()->text == "b");
  CHECK(reader.WouldWait(0));
  close(ends[1]);
  CHECK(reader.Next().value()->text == "c");
  CHECK_FALSE(reader.Next().value().has_value());
  close(ends[0]);
}

}  // namespace
}  // namespace fretsaw
