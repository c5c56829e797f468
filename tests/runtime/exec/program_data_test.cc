// The section `program`: what is read, and every rule of docs/program.md broken once.
#include "exec/program_data.h"

#include <doctest/doctest.h>

#include <functional>
#include <nlohmann/json.hpp>
#include <string>

#include "exec/program_verify.h"

namespace fretsaw {
namespace {

using nlohmann::json;

// x = f(tokens); y = g(x in another shape, tensor 0, cache); out = h(y), in the slot of x.
json Good() {
  return json::parse(R"({"version": 1, "entries": [{
    "name": "step", "symbols": ["R", "T"], "inputs": [0, 1], "outputs": [5],
    "slots": [{"T": 64}, {"T": 32, "": 16}, {"R": 8}],
    "values": [
      {"name": "tokens", "dtype": "i32", "shape": [{"T": 1}]},
      {"name": "rows", "dtype": "i32", "shape": [{"R": 1}]},
      {"name": "x", "dtype": "f32", "shape": [{"T": 1}, 16], "slot": 0},
      {"name": "x.heads", "dtype": "f32", "shape": [{"T": 2}, 8], "of": 2},
      {"name": "y", "dtype": "f16", "shape": [{"T": 1}, 16], "slot": 1},
      {"name": "out", "dtype": "f32", "shape": [{"R": 1}, 2], "slot": 2}],
    "launches": [
      {"kernel": "f", "args": [["value", 0], ["value", 2]], "made": 1},
      {"kernel": "g", "args": [["value", 3], ["tensor", 0], ["cache", "table"], ["int", -3], ["value", 4]], "made": 1},
      {"kernel": "h", "args": [["value", 4], ["value", 1], ["value", 5]], "made": 1}]}]})");
}

Surroundings Around() {
  return {1, {"table"}, {"tokens", "positions", "rows"}, {"T", "R", "B"}, {"step"}};
}

std::string Wrong(const json& program, const Surroundings& around = Around()) {
  auto data = ParseProgram(program.dump());
  if (!data) return data.error().message;
  const auto ok = VerifyProgram(data.value(), around);
  return ok ? "" : ok.error().message;
}

TEST_CASE("a program is read as it is written") {
  auto data = ParseProgram(Good().dump());
  REQUIRE(data.ok());
  CHECK(Wrong(Good()).empty());
  const EntryData* entry = data.value().Find("step");
  REQUIRE(entry != nullptr);
  CHECK(data.value().Find("encode") == nullptr);
  CHECK(entry->symbols == std::vector<std::string>{"R", "T"});
  CHECK(entry->output == 5);
  CHECK(entry->slots[1].terms().size() == 2);
  CHECK(entry->values[3].of == 2);
  CHECK(entry->values[4].type == ValueType::kF16);
  const LaunchData& launch = entry->launches[1];
  CHECK(launch.kernel == "g");
  CHECK(launch.made == 1);
  CHECK(launch.args[1].kind == ArgData::Kind::kTensor);
  CHECK(launch.args[2].cache == "table");
  CHECK(launch.args[3].number == -3);
}

struct Case {
  const char* words;
  std::function<void(json&)> change;  // of the entry
};

TEST_CASE("every rule is held") {
  const std::vector<Case> cases{
      // Form.
      {"missing", [](json& e) { e.erase("name"); }},
      {"name is empty", [](json& e) { e["name"] = ""; }},
      {"values is not a list", [](json& e) { e["values"] = 3; }},
      {"dtype 'f64' is not one of", [](json& e) { e["values"][2]["dtype"] = "f64"; }},
      {"a size has to be an integer", [](json& e) { e["values"][2]["shape"][1] = 1.5; }},
      {"a size has to be an integer", [](json& e) { e["slots"][0]["T"] = "64"; }},
      {"a size is not from 0", [](json& e) { e["values"][2]["shape"][1] = -1; }},
      {"a size is not from 0", [](json& e) { e["slots"][0]["T"] = int64_t{1} << 53; }},
      {"no product of at most 8", [](json& e) { e["slots"][0]["Q"] = 1; }},
      {"no product of at most 8", [](json& e) { e["slots"][0]["T*"] = 1; }},
      {"no product of at most 8", [](json& e) { e["slots"][0]["T*T*T*T*T*T*T*T*T"] = 1; }},
      {"an entry has one output", [](json& e) { e["outputs"] = json::array(); }},
      {"is not one of value, tensor", [](json& e) { e["launches"][0]["args"][0][0] = "file"; }},
      {"an argument is a list", [](json& e) { e["launches"][0]["args"][0] = 7; }},
      {"not an integer of 64 bits", [](json& e) { e["launches"][0]["args"][0][1] = "0"; }},
      {"an index is negative", [](json& e) { e["launches"][0]["args"][0][1] = -1; }},
      {"made", [](json& e) { e["launches"][0]["made"] = 3; }},
      // Meaning.
      {"no caller knows the symbol 'Z'", [](json& e) { e["symbols"].push_back("Z"); }},
      {"there is no value 9", [](json& e) { e["inputs"].push_back(9); }},
      {"is an input twice", [](json& e) { e["inputs"].push_back(0); }},
      {"an input that no caller binds", [](json& e) { e["values"][0]["name"] = "ids"; }},
      {"an input that no caller binds", [](json& e) { e["values"][0]["dtype"] = "i64"; }},
      {"has a place in the workspace", [](json& e) { e["values"][0]["slot"] = 0; }},
      {"either a slot or a value", [](json& e) { e["values"][2].erase("slot"); }},
      {"either a slot or a value", [](json& e) { e["values"][2]["of"] = 0; }},
      {"a slot that does not exist", [](json& e) { e["values"][2]["slot"] = 3; }},
      {"does not fit slot 0", [](json& e) { e["slots"][0]["T"] = 63; }},
      {"does not fit slot 0", [](json& e) { e["values"][2]["shape"][1] = 17; }},
      {"does not fit slot 0", [](json& e) { e["values"][2]["shape"][0] = {{"R", 1}}; }},
      {"shows a value that does not exist", [](json& e) { e["values"][3]["of"] = 6; }},
      {"is no reshape of", [](json& e) { e["values"][3]["shape"][1] = 9; }},
      {"is no reshape of", [](json& e) { e["values"][3]["dtype"] = "i32"; }},
      {"is no reshape of", [](json& e) { e["values"][3]["of"] = 3; }},
      {"over 2^53 elements",
       [](json& e) {
         e["values"][2]["shape"][1] = (int64_t{1} << 53) - 1;
         e["values"][2]["shape"][0] = {{"T", 2}};
       }},
      {"the output does not exist", [](json& e) { e["outputs"][0] = 6; }},
      {"the output must be an f32 array", [](json& e) { e["outputs"][0] = 4; }},
      {"the output must be an f32 array", [](json& e) { e["outputs"][0] = 0; }},
      {"there is no value 6", [](json& e) { e["launches"][0]["args"][0][1] = 6; }},
      {"there is no tensor 1", [](json& e) { e["launches"][1]["args"][1][1] = 1; }},
      {"no cache array 'pages'", [](json& e) { e["launches"][1]["args"][2][1] = "pages"; }},
      {"makes what is no value", [](json& e) { e["launches"][1]["made"] = 2; }},
      {"reads value 4 (y), which is not made yet",
       [](json& e) { e["launches"][0]["args"][0][1] = 4; }},
      {"an input or a reshape", [](json& e) { e["launches"][0]["args"][1][1] = 3; }},
      {"makes value 2 (x) again", [](json& e) { e["launches"][2]["args"][2][1] = 2; }},
      {"is still needed, slot 1",
       [](json& e) {
         e["values"][5]["slot"] = 1;
         e["slots"][1]["R"] = 8;
       }},
      {"no launch makes value 5", [](json& e) { e["launches"].erase(2); }},
  };
  for (const Case& c : cases) {
    json program = Good();
    c.change(program["entries"][0]);
    CAPTURE(c.words);
    const std::string message = Wrong(program);
    CHECK_MESSAGE(message.find(c.words) != std::string::npos, message);
  }
  json fits = Good();  // a slot is free once what it held was read for the last time
  fits["entries"][0]["values"][5]["slot"] = 0;
  fits["entries"][0]["slots"][0]["R"] = 8;
  CHECK(Wrong(fits).empty());
}

TEST_CASE("the program as a whole") {
  json program = Good();
  program["version"] = 2;
  CHECK(Wrong(program).find("its form has version 2") != std::string::npos);
  program = Good();
  program["entries"].push_back(program["entries"][0]);
  CHECK(Wrong(program).find("a second entry 'step'") != std::string::npos);
  Surroundings around = Around();
  around.entries.push_back("step_dense");
  CHECK(Wrong(Good(), around).find("names the entry 'step_dense'") != std::string::npos);
  CHECK(ParseProgram("[1]").error().status == Status::kCorrupt);
  CHECK(ParseProgram("{").error().status == Status::kCorrupt);
}

}  // namespace
}  // namespace fretsaw
