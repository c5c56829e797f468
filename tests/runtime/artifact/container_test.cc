// Container::Parse: what it accepts, and each structural fault with its status and words.
#include "artifact/container.h"

#include <doctest/doctest.h>

#include <functional>

#include "artifact/builder.h"

namespace fretsaw {
namespace {

using test::Bytes;
using test::Parts;

TEST_CASE("container: a valid file opens and every section is found") {
  const Bytes bytes = test::Build({});
  auto container = Container::Parse(bytes);
  REQUIRE(container.ok());
  CHECK(container.value().manifest() == test::kManifest);
  REQUIRE(container.value().sections().size() == 4);
  const Section* weights = container.value().Find("weights");
  REQUIRE(weights != nullptr);
  CHECK(weights->bytes.size() == 74);
  CHECK(weights->offset % kAlignment == 0);
  CHECK(container.value().Find("code") == nullptr);
  CHECK(container.value().VerifyAll().ok());
}

struct Fault {
  const char* words;
  Status status;
  std::function<void(Bytes*, size_t table)> make;
};

TEST_CASE("container: faults behind right digests are refused one by one") {
  constexpr auto kCorrupt = Status::kCorrupt;
  const Fault faults[] = {
      {"signature", Status::kBadMagic, [](Bytes* b, size_t) { (*b)[0] = 'G'; }},
      {"needs a reader of version 3", Status::kNewerVersion,
       [](Bytes* b, size_t) { test::Put<uint64_t>(b, 8, 0x300000003); }},
      {"compile the checkpoint again", Status::kUnsupported,
       [](Bytes* b, size_t) { test::Put<uint64_t>(b, 8, 0x100000001); }},
      {"format version 0", kCorrupt, [](Bytes* b, size_t) { test::Put<uint64_t>(b, 8, 0); }},
      {"reserved bytes", kCorrupt, [](Bytes* b, size_t) { (*b)[52] = 1; }},
      {"reserved bytes", kCorrupt, [](Bytes* b, size_t) { (*b)[95] = 1; }},
      {"the header says", Status::kTruncated,
       [](Bytes* b, size_t) { test::Put<uint64_t>(b, 16, ~uint64_t{0}); }},
      {"the header says", kCorrupt, [](Bytes* b, size_t) { test::Put<uint64_t>(b, 16, 128); }},
      {"manifest offset", kCorrupt, [](Bytes* b, size_t) { test::Put<uint64_t>(b, 24, 64); }},
      {"over the limit", kCorrupt,
       [](Bytes* b, size_t) { test::Put<uint64_t>(b, 32, ~uint64_t{0} - 100); }},
      {"over the limit", kCorrupt,
       [](Bytes* b, size_t) { test::Put<uint64_t>(b, 32, uint64_t{65} << 20); }},
      {"does not follow", kCorrupt, [](Bytes* b, size_t t) { test::Put<uint64_t>(b, 40, t + 64); }},
      {"sections, at most", kCorrupt, [](Bytes* b, size_t) { test::Put<uint32_t>(b, 48, 4097); }},
      {"past the end", kCorrupt, [](Bytes* b, size_t) { test::Put<uint32_t>(b, 48, 4096); }},
      {"has no name", kCorrupt, [](Bytes* b, size_t t) { (*b)[t] = 0; }},
      {"name padding", kCorrupt, [](Bytes* b, size_t t) { (*b)[t + 63] = 'x'; }},
      {"reserved bytes", kCorrupt, [](Bytes* b, size_t t) { (*b)[t + 127] = 1; }},
      {"two sections are named 'weights'", kCorrupt,
       [](Bytes* b, size_t t) { std::memcpy(b->data() + t + 128, "weights", 7); }},
      {"not aligned", kCorrupt, [](Bytes* b, size_t t) { (*b)[t + 64] += 1; }},
      {"overlaps", kCorrupt, [](Bytes* b, size_t t) { test::Put<uint64_t>(b, t + 64, 0); }},
      {"past the end", kCorrupt,
       [](Bytes* b, size_t t) { test::Put<uint64_t>(b, t + 64, uint64_t{1} << 40); }},
      {"past the end", kCorrupt,
       [](Bytes* b, size_t t) { test::Put<uint64_t>(b, t + 72, ~uint64_t{0}); }},
      {"leaves a gap", kCorrupt, [](Bytes* b, size_t t) { test::Put<uint64_t>(b, t + 72, 0); }},
      {"follow the last section", kCorrupt,
       [](Bytes* b, size_t t) { test::Put<uint64_t>(b, t + 384 + 72, 3); }},
      {"are not zero", kCorrupt, [](Bytes* b, size_t t) { (*b)[t + 512 + 75] = 1; }},
      {"between manifest and table", kCorrupt, [](Bytes* b, size_t t) { (*b)[t - 1] = 1; }},
  };
  for (const Fault& fault : faults) {
    CAPTURE(fault.words);
    Parts parts;
    while (parts.manifest.size() % 64 != 32) parts.manifest += ' ';  // so that there is a gap
    const Bytes good = test::Build(parts);
    REQUIRE(Container::Parse(good).ok());
    Bytes bad = good;
    fault.make(&bad, test::TableOffset(parts));
    test::Seal(&bad, parts);
    auto result = Container::Parse(bad);
    REQUIRE_FALSE(result.ok());
    CHECK(result.error().status == fault.status);
    CHECK(result.error().message.find(fault.words) != std::string::npos);
    INFO(result.error().message);
  }
}

}  // namespace
}  // namespace fretsaw
