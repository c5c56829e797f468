// StopMatcher: whatever the pieces, the text is what a search over the whole text gives.
#include "model/stop_matcher.h"

#include <doctest/doctest.h>

#include <algorithm>

#include "sampler/prng.h"

namespace fretsaw {
namespace {

TEST_CASE("stop: found across pieces, never printed") {
  StopMatcher matcher({"END", ""});
  CHECK(matcher.Push("ab E") == "ab ");
  CHECK(matcher.Push("N") == "");
  CHECK(matcher.Push("Dxyz") == "");
  CHECK(matcher.stopped());
  CHECK(matcher.Push("more") == "");
}

TEST_CASE("stop: a start that does not complete is released") {
  StopMatcher matcher({"aab"});
  CHECK(matcher.Push("aa") == "");
  CHECK(matcher.Push("a") == "a");  // "aa" may still begin one
  CHECK(matcher.Push("c") == "aac");
  CHECK(matcher.Push("a") == "");
  CHECK(matcher.Flush() == "a");
  CHECK_FALSE(matcher.stopped());
}

TEST_CASE("stop: any cutting into pieces agrees with the whole text") {
  SplitMix64 random(1);
  int stopped = 0;
  for (int round = 0; round < 2000; ++round) {
    const auto text_of = [&](uint64_t length) {
      std::string text;
      for (uint64_t i = 0; i < length; ++i) text += "abc"[random.Next() % 3];
      return text;
    };
    const std::vector<std::string> stops = {text_of(1 + random.Next() % 6),
                                            text_of(3 + random.Next() % 6)};
    const std::string text = text_of(random.Next() % 40);
    StopMatcher matcher(stops);
    std::string out;
    for (size_t at = 0; at < text.size() && !matcher.stopped();) {
      const size_t count = 1 + random.Next() % 4;
      out += matcher.Push(text.substr(at, count));
      at += count;
    }
    if (!matcher.stopped()) out += matcher.Flush();
    // Pieces can end one match before another that starts earlier is complete, so the first match
    // to complete counts: the shortest prefix of the text that holds a stop string, cut where it
    // starts.
    const size_t first = std::min(text.find(stops[0]), text.find(stops[1]));
    if (first == std::string::npos) {
      CHECK_FALSE(matcher.stopped());
      CHECK(out == text);
    } else {
      ++stopped;
      CHECK(matcher.stopped());
      const bool one_of_them =
          out == text.substr(0, text.find(stops[0])) || out == text.substr(0, text.find(stops[1]));
      CHECK(one_of_them);
    }
  }
  CHECK(stopped > 200);
}

}  // namespace
}  // namespace fretsaw
