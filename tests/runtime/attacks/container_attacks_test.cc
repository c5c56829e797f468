// A valid artifact cut at every length and with every byte changed never passes full verification.
#include <doctest/doctest.h>

#include <memory>

#include "artifact/builder.h"
#include "artifact/container.h"
#include "artifact/manifest.h"

namespace fretsaw {
namespace {

// What `--verify` does, on a copy whose end the address sanitizer guards.
Status FullVerify(std::span<const uint8_t> file) {
  const auto copy = std::make_unique<uint8_t[]>(file.size());
  std::copy(file.begin(), file.end(), copy.get());
  auto container = Container::Parse({copy.get(), file.size()});
  if (!container) return container.error().status;
  auto manifest = Manifest::Parse(container.value());
  if (!manifest) return manifest.error().status;
  auto verified = container.value().VerifyAll();
  return verified ? Status::kOk : verified.error().status;
}

TEST_CASE("attacks: cut at every length") {
  const test::Bytes good = test::Build({});
  REQUIRE(FullVerify(good) == Status::kOk);
  for (size_t length = 0; length < good.size(); ++length) {
    CAPTURE(length);
    CHECK(FullVerify(std::span(good).first(length)) == Status::kTruncated);
  }
}

TEST_CASE("attacks: every byte changed, in several ways") {
  const test::Bytes good = test::Build({});
  test::Bytes bad = good;
  for (size_t at = 0; at < good.size(); ++at) {
    for (const int flip : {0x01, 0x80, 0xff}) {
      bad[at] = static_cast<uint8_t>(good[at] ^ flip);
      const Status status = FullVerify(bad);
      CAPTURE(at);
      if (at < 8) {
        CHECK(status == Status::kBadMagic);
      } else if (at >= 12 && at < 16) {
        const bool newer = status == Status::kNewerVersion;  // of the oldest reader
        CHECK((newer || status == Status::kCorrupt));
      } else {
        CHECK(status == Status::kCorrupt);
      }
    }
    bad[at] = good[at];
  }
  CHECK(FullVerify(bad) == Status::kOk);
}

TEST_CASE("attacks: hostile manifests behind right digests") {
  const auto parse = [](const std::string& manifest) {
    test::Parts parts;
    parts.manifest = manifest;
    return FullVerify(test::Build(parts));
  };
  CHECK(parse(std::string(100000, '[')) == Status::kCorrupt);
  CHECK(parse(std::string(100000, '{')) == Status::kCorrupt);
  CHECK(parse("[" + std::string(size_t{5} << 20, ',') + "]") == Status::kCorrupt);
  CHECK(parse("") == Status::kCorrupt);
  CHECK(parse("null") == Status::kCorrupt);
  CHECK(parse("{\"format_version\": 1e400}") == Status::kCorrupt);
  CHECK(parse(std::string("{\"\xff\": 1}")) == Status::kCorrupt);
}

}  // namespace
}  // namespace fretsaw
