#include "exec/program_verify.h"

#include <algorithm>
#include <optional>
#include <string_view>

namespace fretsaw {
namespace {

constexpr size_t kNone = ValueData::kNone;
constexpr size_t kForever = SIZE_MAX;

struct Refusal {
  std::string message;
};

bool Holds(const std::vector<std::string>& names, std::string_view name) {
  return std::ranges::find(names, name) != names.end();
}

class EntryCheck {
 public:
  EntryCheck(const EntryData& entry, const Surroundings& around)
      : entry_(entry), around_(around), is_input_(entry.values.size(), false) {}

  void Run() {
    for (const std::string& symbol : entry_.symbols) {
      if (!Holds(around_.symbols, symbol)) Fail("no caller knows the symbol '" + symbol + "'");
    }
    CheckInputs();
    for (size_t i = 0; i < entry_.values.size(); ++i) CheckValue(i);
    CheckOutput();
    for (size_t i = 0; i < entry_.launches.size(); ++i) CheckArguments(i);
    CheckOrder();
  }

 private:
  [[noreturn]] void Fail(const std::string& what) const {
    throw Refusal{"entry '" + entry_.name + "': " + what};
  }

  std::string Value(size_t i) const {
    return "value " + std::to_string(i) + " (" + entry_.values[i].name + ")";
  }

  std::string Launch(size_t i) const {
    return "launch " + std::to_string(i) + " (" + entry_.launches[i].kernel + ")";
  }

  // The value whose bytes value `i` has.
  size_t Root(size_t i) const { return entry_.values[i].of == kNone ? i : entry_.values[i].of; }

  Size Elements(size_t i) const {
    Size count(1);
    for (const Size& axis : entry_.values[i].shape) {
      const std::optional<Size> product = count.Times(axis);
      if (!product) Fail(Value(i) + " has over 2^53 elements, or too many terms");
      count = *product;
    }
    return count;
  }

  void CheckInputs() {
    std::vector<std::string_view> names;
    for (const size_t i : entry_.inputs) {
      if (i >= entry_.values.size()) Fail("there is no value " + std::to_string(i));
      const ValueData& value = entry_.values[i];
      if (is_input_[i] || std::ranges::find(names, value.name) != names.end()) {
        Fail(Value(i) + " is an input twice");
      }
      is_input_[i] = true;
      names.push_back(value.name);
      if (!Holds(around_.inputs, value.name) || value.type != ValueType::kI32 ||
          value.shape.size() != 1) {
        Fail(Value(i) + " is an input that no caller binds");
      }
      if (value.slot != kNone || value.of != kNone) {
        Fail(Value(i) + " is an input and has a place in the workspace");
      }
    }
  }

  void CheckValue(size_t i) const {
    const ValueData& value = entry_.values[i];
    if (is_input_[i]) return;
    if ((value.slot == kNone) == (value.of == kNone)) {
      Fail(Value(i) + " must have either a slot or a value that it is a reshape of");
    }
    if (value.of == kNone) {
      if (value.slot >= entry_.slots.size()) Fail(Value(i) + " is in a slot that does not exist");
      const auto bytes = Elements(i).Times(Size(ValueTypeBytes(value.type)));
      if (!bytes || !entry_.slots[value.slot].Covers(*bytes)) {
        Fail(Value(i) + " does not fit slot " + std::to_string(value.slot));
      }
      return;
    }
    if (value.of >= entry_.values.size()) Fail(Value(i) + " shows a value that does not exist");
    const ValueData& whole = entry_.values[value.of];
    if (whole.of != kNone || whole.type != value.type || Elements(value.of) != Elements(i)) {
      Fail(Value(i) + " is no reshape of " + Value(value.of));
    }
  }

  void CheckOutput() const {
    const size_t i = entry_.output;
    if (i >= entry_.values.size()) Fail("the output does not exist");
    if (is_input_[Root(i)] || entry_.values[i].type != ValueType::kF32) {
      Fail("the output must be an f32 array that a launch makes");
    }
  }

  void CheckArguments(size_t at) const {
    const LaunchData& launch = entry_.launches[at];
    for (const ArgData& arg : launch.args) {
      const auto number = static_cast<uint64_t>(arg.number);
      if (arg.kind == ArgData::Kind::kValue && number >= entry_.values.size()) {
        Fail(Launch(at) + ": there is no value " + std::to_string(number));
      }
      if (arg.kind == ArgData::Kind::kTensor && number >= around_.tensors) {
        Fail(Launch(at) + ": there is no tensor " + std::to_string(number));
      }
      if (arg.kind == ArgData::Kind::kCache && !Holds(around_.cache, arg.cache)) {
        Fail(Launch(at) + ": there is no cache array '" + arg.cache + "'");
      }
    }
    for (size_t i = launch.args.size() - launch.made; i < launch.args.size(); ++i) {
      if (launch.args[i].kind != ArgData::Kind::kValue) {
        Fail(Launch(at) + " makes what is no value");
      }
    }
  }

  // Every value is made once, before it is read, in a slot that nothing else needs then.
  void CheckOrder() const {
    const std::vector<size_t> last = LastUses();
    std::vector<bool> ready = is_input_;
    std::vector<size_t> held(entry_.slots.size(), kNone);  // the value in each slot
    for (size_t at = 0; at < entry_.launches.size(); ++at) {
      const LaunchData& launch = entry_.launches[at];
      const size_t reads = launch.args.size() - launch.made;
      for (size_t k = 0; k < launch.args.size(); ++k) {
        if (launch.args[k].kind != ArgData::Kind::kValue) continue;
        const auto i = static_cast<size_t>(launch.args[k].number);
        if (k < reads) {
          if (!ready[Root(i)]) Fail(Launch(at) + " reads " + Value(i) + ", which is not made yet");
          continue;
        }
        const size_t slot = entry_.values[i].slot;
        if (slot == kNone) Fail(Launch(at) + " makes " + Value(i) + ", an input or a reshape");
        if (ready[i]) Fail(Launch(at) + " makes " + Value(i) + " again");
        if (held[slot] != kNone && last[held[slot]] >= at) {
          Fail(Launch(at) + " makes " + Value(i) + " where " + Value(held[slot]) +
               " is still needed, slot " + std::to_string(slot));
        }
        held[slot] = i;
        ready[i] = true;
      }
    }
    for (size_t i = 0; i < ready.size(); ++i) {
      if (entry_.values[i].of == kNone && !ready[i]) Fail("no launch makes " + Value(i));
    }
  }

  // The launch after which a value is not needed: the last that reads it, or the one that makes it.
  std::vector<size_t> LastUses() const {
    std::vector<size_t> last(entry_.values.size(), 0);
    for (size_t at = 0; at < entry_.launches.size(); ++at) {
      for (const ArgData& arg : entry_.launches[at].args) {
        if (arg.kind == ArgData::Kind::kValue) last[Root(static_cast<size_t>(arg.number))] = at;
      }
    }
    last[Root(entry_.output)] = kForever;
    return last;
  }

  const EntryData& entry_;
  const Surroundings& around_;
  std::vector<bool> is_input_;
};

}  // namespace

VoidResult VerifyProgram(const ProgramData& program, const Surroundings& around) {
  try {
    for (const std::string& name : around.entries) {
      if (program.Find(name) == nullptr) {
        throw Refusal{"the manifest names the entry '" + name + "', which is not there"};
      }
    }
    for (const EntryData& entry : program.entries) EntryCheck(entry, around).Run();
  } catch (const Refusal& e) {
    return Error{Status::kCorrupt, "corrupt artifact: program: " + e.message};
  }
  return Ok{};
}

}  // namespace fretsaw
