#include "artifact/container.h"

#include <algorithm>
#include <cstring>
#include <set>

namespace fretsaw {
namespace {

constexpr uint8_t kMagic[8] = {'F', 'R', 'E', 'T', 'S', 'A', 'W', 0};
constexpr uint64_t kHeaderBytes = 128;
constexpr uint64_t kEntryBytes = 128;
constexpr uint64_t kNameBytes = 64;
constexpr uint64_t kMaxManifestBytes = uint64_t{64} << 20;
constexpr uint64_t kMaxSections = 4096;

using Bytes = std::span<const uint8_t>;

struct Header {
  uint32_t version, oldest_reader;
  uint64_t file_bytes, manifest_offset, manifest_bytes, table_offset;
  uint32_t section_count;
};

// The file is little endian and so are the machines we run on (a big-endian build must swap here).
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__);
template <typename T>
T Load(Bytes bytes, uint64_t offset) {
  T value;
  std::memcpy(&value, bytes.data() + offset, sizeof value);
  return value;
}

Digest LoadDigest(Bytes bytes, uint64_t offset) {
  Digest digest;
  std::memcpy(digest.data(), bytes.data() + offset, digest.size());
  return digest;
}

bool AllZero(Bytes bytes) {
  return std::all_of(bytes.begin(), bytes.end(), [](uint8_t b) { return b == 0; });
}

Error Corrupt(const std::string& what) {
  return {Status::kCorrupt, "corrupt artifact: " + what + "; compile or copy it again"};
}

Error Truncated(const std::string& what) {
  return {Status::kTruncated, "truncated artifact: " + what + "; compile or copy it again"};
}

std::string Num(uint64_t value) { return std::to_string(value); }

uint64_t AlignUp(uint64_t value) { return (value + kAlignment - 1) / kAlignment * kAlignment; }

// Magic and version come first: a file that is not an artifact, or a newer one, must be told so
// whatever else is in it.
VoidResult CheckIdentity(Bytes file) {
  if (file.empty()) return Truncated("the file is empty");
  const size_t n = std::min<size_t>(file.size(), sizeof kMagic);
  if (std::memcmp(file.data(), kMagic, n) != 0) {
    return Error{Status::kBadMagic,
                 "not a Fretsaw artifact: the file does not start with the FRETSAW signature"};
  }
  if (file.size() < kHeaderBytes) {
    return Truncated(Num(file.size()) + " bytes, shorter than the header of " + Num(kHeaderBytes));
  }
  const auto version = Load<uint32_t>(file, 8);
  const auto oldest = Load<uint32_t>(file, 12);
  if (oldest > kFormatVersion) {
    return Error{Status::kNewerVersion, "artifact of format version " + Num(version) +
                                            " needs a reader of version " + Num(oldest) +
                                            ", this one has version " + Num(kFormatVersion) +
                                            "; use a newer fretsaw-run"};
  }
  return Ok{};
}

Result<Header> ReadHeader(Bytes file) {
  Header h{};
  h.version = Load<uint32_t>(file, 8);
  h.oldest_reader = Load<uint32_t>(file, 12);
  h.file_bytes = Load<uint64_t>(file, 16);
  h.manifest_offset = Load<uint64_t>(file, 24);
  h.manifest_bytes = Load<uint64_t>(file, 32);
  h.table_offset = Load<uint64_t>(file, 40);
  h.section_count = Load<uint32_t>(file, 48);

  if (Sha256({file.first(96)}) != LoadDigest(file, 96)) return Corrupt("header digest differs");
  if (h.version == 0 || h.oldest_reader == 0 || h.oldest_reader > h.version) {
    return Corrupt("header: format version " + Num(h.version) + " with oldest reader " +
                   Num(h.oldest_reader));
  }
  if (h.version < kFormatVersion) {
    return Error{Status::kUnsupported,
                 "artifact of format version " + Num(h.version) +
                     ", written by an older Fretsaw; this one reads version " +
                     Num(kFormatVersion) + ": compile the checkpoint again"};
  }
  if (!AllZero(file.subspan(52, 4)) || !AllZero(file.subspan(88, 8))) {
    return Corrupt("header: reserved bytes are not zero");
  }
  if (file.size() < h.file_bytes) {
    return Truncated(Num(file.size()) + " bytes, the header says " + Num(h.file_bytes));
  }
  if (file.size() > h.file_bytes) {
    return Corrupt("file has " + Num(file.size()) + " bytes, the header says " + Num(h.file_bytes));
  }
  if (h.manifest_offset != kHeaderBytes) {
    return Corrupt("header: manifest offset " + Num(h.manifest_offset) + ", expected 128");
  }
  if (h.manifest_bytes > kMaxManifestBytes || h.manifest_bytes > h.file_bytes - kHeaderBytes) {
    return Corrupt("header: manifest of " + Num(h.manifest_bytes) + " bytes is over the limit");
  }
  if (h.section_count > kMaxSections) {
    return Corrupt("header: " + Num(h.section_count) + " sections, at most " + Num(kMaxSections));
  }
  // Both terms are small by now, so the sums cannot overflow.
  if (h.table_offset != AlignUp(kHeaderBytes + h.manifest_bytes)) {
    return Corrupt("header: table offset " + Num(h.table_offset) + " does not follow the manifest");
  }
  if (h.table_offset > h.file_bytes ||
      h.section_count * kEntryBytes > h.file_bytes - h.table_offset) {
    return Corrupt("header: section table reaches past the end of the file");
  }
  return h;
}

// Reads one entry; `cursor` is the end of what came before and moves past this section.
Result<Section> ReadEntry(Bytes file, Bytes entry, uint64_t index, uint64_t* cursor) {
  const std::string where = "section " + Num(index);
  const Bytes raw_name = entry.first(kNameBytes);
  const auto name_end = std::find(raw_name.begin(), raw_name.end(), uint8_t{0});
  const auto name_bytes = static_cast<size_t>(name_end - raw_name.begin());
  if (name_bytes == 0) return Corrupt(where + " has no name");
  if (!AllZero(raw_name.subspan(name_bytes))) return Corrupt(where + ": name padding is not zero");
  if (!AllZero(entry.subspan(112))) return Corrupt(where + ": reserved bytes are not zero");

  Section section;
  section.name = {reinterpret_cast<const char*>(raw_name.data()), name_bytes};
  section.offset = Load<uint64_t>(entry, 64);
  const auto bytes = Load<uint64_t>(entry, 72);
  section.digest = LoadDigest(entry, 80);
  const std::string named = where + " '" + std::string(section.name) + "'";
  if (section.offset % kAlignment != 0) return Corrupt(named + " is not aligned to 64 bytes");
  if (section.offset < *cursor) return Corrupt(named + " overlaps what comes before it");
  if (section.offset > file.size() || bytes > file.size() - section.offset) {
    return Corrupt(named + " reaches past the end of the file");
  }
  if (section.offset - *cursor >= kAlignment) {
    return Corrupt(named + " leaves a gap of " + Num(section.offset - *cursor) + " bytes");
  }
  if (!AllZero(file.subspan(*cursor, section.offset - *cursor))) {
    return Corrupt("bytes before " + named + " are not zero");
  }
  section.bytes = file.subspan(section.offset, bytes);
  *cursor = section.offset + bytes;
  return section;
}

}  // namespace

Result<Container> Container::Parse(Bytes file) {
  if (auto identity = CheckIdentity(file); !identity) return identity.error();
  auto header_result = ReadHeader(file);
  if (!header_result) return header_result.error();
  const Header& header = header_result.value();

  const Bytes manifest = file.subspan(kHeaderBytes, header.manifest_bytes);
  const Bytes table = file.subspan(header.table_offset, header.section_count * kEntryBytes);
  if (Sha256({manifest, table}) != LoadDigest(file, 56)) {
    return Corrupt("digest of manifest and section table differs");
  }
  const uint64_t manifest_end = kHeaderBytes + header.manifest_bytes;
  if (!AllZero(file.subspan(manifest_end, header.table_offset - manifest_end))) {
    return Corrupt("bytes between manifest and table are not zero");
  }

  Container container;
  container.manifest_ = {reinterpret_cast<const char*>(manifest.data()), manifest.size()};
  container.sections_.reserve(header.section_count);
  std::set<std::string_view> names;
  uint64_t cursor = header.table_offset + table.size();
  for (uint64_t i = 0; i < header.section_count; ++i) {
    auto section = ReadEntry(file, table.subspan(i * kEntryBytes, kEntryBytes), i, &cursor);
    if (!section) return section.error();
    if (!names.insert(section.value().name).second) {
      return Corrupt("two sections are named '" + std::string(section.value().name) + "'");
    }
    container.sections_.push_back(section.value());
  }
  if (cursor != file.size()) {
    return Corrupt(Num(file.size() - cursor) + " bytes follow the last section");
  }
  return container;
}

const Section* Container::Find(std::string_view name) const {
  for (const Section& section : sections_) {
    if (section.name == name) return &section;
  }
  return nullptr;
}

VoidResult Container::VerifySection(const Section& section) {
  if (Sha256({section.bytes}) == section.digest) return Ok{};
  return Corrupt("digest of section '" + std::string(section.name) + "' differs");
}

VoidResult Container::VerifyAll() const {
  for (const Section& section : sections_) {
    if (auto result = VerifySection(section); !result) return result;
  }
  return Ok{};
}

}  // namespace fretsaw
