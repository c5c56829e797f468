#include "exec/program_data.h"

#include <algorithm>
#include <set>
#include <utility>

#include "artifact/fields.h"
#include "base/json.h"

namespace fretsaw {
namespace {

using nlohmann::json;

constexpr int64_t kVersion = 1;
constexpr size_t kMaxEntries = 16;
constexpr size_t kMaxSymbols = 16;
constexpr size_t kMaxItems = 65536;  // values, slots, launches
constexpr size_t kMaxArgs = 64;
constexpr size_t kMaxAxes = 8;
constexpr size_t kMaxName = 256;

struct OtherVersion {
  std::string message;
};

std::string Name(const Fields& fields, const char* key) {
  std::string name = fields.String(key, kMaxName);
  if (name.empty()) fields.Fail(std::string(key) + " is empty");
  return name;
}

ValueType ReadType(const Fields& fields) {
  const std::string name = fields.String("dtype", 64);
  if (name == "f32") return ValueType::kF32;
  if (name == "f16") return ValueType::kF16;
  if (name == "i32") return ValueType::kI32;
  if (name == "i64") return ValueType::kI64;
  if (name == "i8") return ValueType::kI8;
  fields.Fail("dtype '" + name + "' is not one of f32, f16, i32, i64, i8");
}

// "B*R": numbers of symbols, ascending; the constant is "".
std::vector<uint8_t> ReadMonomial(const std::string& text, const std::vector<std::string>& symbols,
                                  const Fields& at) {
  std::vector<uint8_t> out;
  size_t begin = 0;
  while (!text.empty()) {
    const size_t end = std::min(text.find('*', begin), text.size());
    const auto found = std::ranges::find(symbols, text.substr(begin, end - begin));
    if (found == symbols.end() || out.size() == Size::kMaxDegree) {
      at.Fail("'" + text.substr(0, kMaxName) + "' is no product of at most 8 of its symbols");
    }
    out.push_back(static_cast<uint8_t>(found - symbols.begin()));
    if (end == text.size()) break;
    begin = end + 1;
  }
  std::ranges::sort(out);
  return out;
}

int64_t ReadNumber(const json& value, const Fields& at) {
  if (!value.is_number_integer() ||
      (value.is_number_unsigned() && value.get<uint64_t>() > INT64_MAX)) {
    at.Fail("a size has to be an integer");
  }
  const auto number = value.get<int64_t>();
  if (number < 0 || number > Size::kMaxNumber) at.Fail("a size is not from 0 to 2^53 - 1");
  return number;
}

Size ReadSize(const json& value, const std::vector<std::string>& symbols, const Fields& at) {
  if (!value.is_object()) return Size(ReadNumber(value, at));
  Size size;
  if (value.size() > Size::kMaxTerms) at.Fail("a size has over 64 terms");
  for (const auto& [monomial, coefficient] : value.items()) {
    Term term{ReadNumber(coefficient, at), ReadMonomial(monomial, symbols, at)};
    if (!size.Add(std::move(term))) at.Fail("a size is over 2^53 - 1");
  }
  return size;
}

const json& List(const json& object, const char* key, size_t most, const Fields& at) {
  const auto found = object.find(key);
  if (found == object.end() || !found->is_array()) at.Fail(std::string(key) + " is not a list");
  if (found->size() > most) {
    at.Fail(std::string(key) + " has over " + std::to_string(most) + " items");
  }
  return *found;
}

size_t ReadIndex(const Fields& fields, const char* key) {
  if (!fields.Has(key)) return ValueData::kNone;
  return static_cast<size_t>(fields.Int(key, 0, kMaxItems));
}

ValueData ReadValue(const json& object, const std::vector<std::string>& symbols,
                    const Fields& fields) {
  ValueData value;
  value.name = Name(fields, "name");
  value.type = ReadType(fields);
  for (const json& axis : List(object, "shape", kMaxAxes, fields)) {
    value.shape.push_back(ReadSize(axis, symbols, fields));
  }
  value.slot = ReadIndex(fields, "slot");
  value.of = ReadIndex(fields, "of");
  return value;
}

ArgData ReadArg(const json& item, const Fields& at) {
  if (!item.is_array() || item.size() != 2 || !item[0].is_string()) {
    at.Fail("an argument is a list of a kind and what it is");
  }
  const auto& kind = item[0].get_ref<const std::string&>();
  ArgData arg;
  if (kind == "cache") {
    if (!item[1].is_string() || item[1].get_ref<const std::string&>().size() > kMaxName) {
      at.Fail("the name of a cache argument has to be a text of at most 256 bytes");
    }
    arg.kind = ArgData::Kind::kCache;
    arg.cache = item[1].get<std::string>();
    return arg;
  }
  if (kind == "value") {
    arg.kind = ArgData::Kind::kValue;
  } else if (kind == "tensor") {
    arg.kind = ArgData::Kind::kTensor;
  } else if (kind != "int") {
    at.Fail("'" + kind.substr(0, 64) + "' is not one of value, tensor, cache, int");
  }
  if (!item[1].is_number_integer() ||
      (item[1].is_number_unsigned() && item[1].get<uint64_t>() > INT64_MAX)) {
    at.Fail("the number of an argument is not an integer of 64 bits");
  }
  arg.number = item[1].get<int64_t>();
  if (arg.kind != ArgData::Kind::kInt && arg.number < 0) at.Fail("an index is negative");
  return arg;
}

LaunchData ReadLaunch(const json& object, const Fields& fields) {
  LaunchData launch;
  launch.kernel = Name(fields, "kernel");
  for (const json& item : List(object, "args", kMaxArgs, fields)) {
    launch.args.push_back(ReadArg(item, fields));
  }
  launch.made =
      static_cast<size_t>(fields.Int("made", 0, static_cast<int64_t>(launch.args.size())));
  return launch;
}

EntryData ReadEntry(const json& object, const Fields& fields) {
  EntryData entry;
  entry.name = Name(fields, "name");
  entry.symbols = fields.Strings("symbols", kMaxSymbols);
  for (const int64_t input : fields.Ints("inputs", 0, kMaxItems, kMaxArgs)) {
    entry.inputs.push_back(static_cast<size_t>(input));
  }
  const std::vector<int64_t> outputs = fields.Ints("outputs", 0, kMaxItems, 2);
  if (outputs.size() != 1) fields.Fail("an entry has one output");
  entry.output = static_cast<size_t>(outputs[0]);
  for (const json& slot : List(object, "slots", kMaxItems, fields)) {
    entry.slots.push_back(ReadSize(slot, entry.symbols, fields));
  }
  const json& values = List(object, "values", kMaxItems, fields);
  const std::vector<Fields> value_fields = fields.Objects("values", kMaxItems);
  for (size_t i = 0; i < values.size(); ++i) {
    entry.values.push_back(ReadValue(values[i], entry.symbols, value_fields[i]));
  }
  const json& launches = List(object, "launches", kMaxItems, fields);
  const std::vector<Fields> launch_fields = fields.Objects("launches", kMaxItems);
  for (size_t i = 0; i < launches.size(); ++i) {
    entry.launches.push_back(ReadLaunch(launches[i], launch_fields[i]));
  }
  return entry;
}

ProgramData Read(const json& root) {
  const Fields fields(root, "");
  const int64_t version = fields.Int("version", 1, INT64_MAX);
  if (version != kVersion) {
    throw OtherVersion{"its form has version " + std::to_string(version) + ", this runtime reads " +
                       std::to_string(kVersion)};
  }
  ProgramData program;
  const std::vector<Fields> entry_fields = fields.Objects("entries", kMaxEntries);
  std::set<std::string> names;
  for (size_t i = 0; i < entry_fields.size(); ++i) {
    program.entries.push_back(ReadEntry(root["entries"][i], entry_fields[i]));
    if (!names.insert(program.entries.back().name).second) {
      entry_fields[i].Fail("a second entry '" + program.entries.back().name + "'");
    }
  }
  return program;
}

}  // namespace

int64_t ValueTypeBytes(ValueType type) {
  switch (type) {
    case ValueType::kF32:
    case ValueType::kI32:
      return 4;
    case ValueType::kF16:
      return 2;
    case ValueType::kI64:
      return 8;
    case ValueType::kI8:
      return 1;
  }
  return 0;
}

const EntryData* ProgramData::Find(std::string_view name) const {
  const auto found = std::ranges::find(entries, name, &EntryData::name);
  return found == entries.end() ? nullptr : &*found;
}

Result<ProgramData> ParseProgram(std::string_view text) {
  auto parsed = ParseJson(text, "program");
  if (!parsed) return parsed.error();
  try {
    return Read(parsed.value());
  } catch (const FieldError& e) {
    return Error{Status::kCorrupt, "corrupt artifact: program: " + e.message};
  } catch (const OtherVersion& e) {
    return Error{Status::kUnsupported, "unsupported artifact: program: " + e.message};
  } catch (const std::bad_alloc&) {
    return Error{Status::kOutOfMemory, "program: not enough memory to read it"};
  }
}

}  // namespace fretsaw
