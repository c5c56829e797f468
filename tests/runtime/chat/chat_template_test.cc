// Chat templates: messages of bad templates and inputs, and the bounds.
#include "chat/chat_template.h"

#include <doctest/doctest.h>
#include <pthread.h>

using fretsaw::ChatInput;
using fretsaw::ChatTemplate;
using fretsaw::Status;

namespace {

std::string Render(const std::string& source, const std::string& context = "") {
  const auto parsed = ChatTemplate::Parse(source);
  if (!parsed) return "parse: " + parsed.error().message;
  ChatInput input;
  input.messages = {{"user", "hi"}};
  input.bos_token = "<s>";
  input.add_generation_prompt = true;
  input.context_json = context;
  const auto text = parsed.value().Render(input);
  return text ? text.value() : "render: " + text.error().message;
}

// Render in a thread with the stack that a template may need, 1 MiB; sanitizers make frames many
// times as large.
std::string RenderOnSmallStack(const std::string& source) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  constexpr size_t kStack = 16u << 20;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
  constexpr size_t kStack = 16u << 20;
#else
  constexpr size_t kStack = 1u << 20;
#endif
#else
  constexpr size_t kStack = 1u << 20;
#endif
  struct Job {
    const std::string& source;
    std::string out;
  } job{source, ""};
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  REQUIRE(pthread_attr_setstacksize(&attributes, kStack) == 0);
  pthread_t thread;
  const auto run = [](void* data) -> void* {
    static_cast<Job*>(data)->out = Render(static_cast<Job*>(data)->source);
    return nullptr;
  };
  REQUIRE(pthread_create(&thread, &attributes, run, &job) == 0);
  pthread_join(thread, nullptr);
  pthread_attr_destroy(&attributes);
  return job.out;
}

std::string Repeat(const std::string& part, int times) {
  std::string out;
  for (int i = 0; i < times; ++i) out += part;
  return out;
}

}  // namespace

TEST_CASE("a conversation") {
  CHECK(Render(
            "{{ bos_token }}{% for m in messages %}\n[{{ m.role }}] {{ m.content }}\n{% endfor %}\n"
            "{% if add_generation_prompt %}>{% endif %}") == "<s>[user] hi\n>");
}

TEST_CASE("errors name the line and the culprit") {
  CHECK(Render("\n\n{{ x.y.z }}") == "render: chat template, line 3: 'x' is undefined");
  CHECK(Render("{{ raise_exception('no system role') }}") ==
        "render: chat template, line 1: no system role");
  CHECK(Render("{% if x %}") == "parse: chat template, line 1: expected 'endif' before the end");
  CHECK(Render("a\n{{ 1 +") == "parse: chat template, line 2: the tag has no end");
  CHECK(Render("{{ x|wordwrap }}") ==
        "parse: chat template, line 1: the filter 'wordwrap' is not supported");
  CHECK(Render("{{ 'a' + 1 }}") ==
        "render: chat template, line 1: '+' does not work on str and int");
  CHECK(Render("{{ 1 // 0 }}") == "render: chat template, line 1: division by zero");
  CHECK(Render("x", "[]") == "render: chat context: not a JSON object");
  const auto bad = ChatTemplate::Parse("a\xFF");
  CHECK(bad.error().message == "the chat template is not valid UTF-8: bad byte at offset 1");
}

TEST_CASE("bounds hold against templates that never end") {
  const auto ends = [](const std::string& source, const std::string& part) {
    const std::string out = Render(source);
    CHECK_MESSAGE(out.find(part) != std::string::npos, out.substr(0, 200));
  };
  ends("{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{{ a }}{% endfor %}",
       "stopped after");
  ends("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "calls nested deeper than 400");
  ends("{{ 'x' * 999999999999 }}", "MiB of text");
  ends(
      "{% set ns = namespace(s='xxxxxxxx') %}{% for i in range(60) %}{% set ns.s = ns.s + ns.s "
      "%}{% endfor %}",
      "MiB of text");
  ends(
      "{% set ns = namespace(l=[1]) %}{% for i in range(60) %}{% set ns.l = [ns.l, ns.l] %}{% "
      "endfor %}{{ ns.l }}",
      "");
  ends("{{ " + std::string(5000, '(') + "1" + std::string(5000, ')') + " }}",
       "nesting over 100 levels");
  ends("{{ " + std::string(5000, '-') + "1 }}", "nesting over 100 levels");
  ends("{% set ns = namespace() %}{% set ns.me = ns %}", "a namespace inside a namespace");
  ends("{% set l = [1] %}{% for i in range(3) %}{% set l = [l, l] %}{% endfor %}{{ l == l }}",
       "True");
  ends("{{ range(999999999) }}", "range is longer than 100000");
}

TEST_CASE("no template needs more than 1 MiB of stack") {
  const auto ends = [](const std::string& source, const std::string& part) {
    const std::string out = RenderOnSmallStack(source);
    CHECK_MESSAGE(out.find(part) != std::string::npos, out.substr(0, 200));
  };
  const std::string deep = "nested deeper than 400";
  for (const std::string block : {"for i in [1]", "if 1", "filter trim", "generation"}) {
    const std::string end = "{% end" + block.substr(0, block.find(' ')) + " %}";
    ends("{% macro m(n) %}" + Repeat("{% " + block + " %}", 75) + "{{ m(n) }}" + Repeat(end, 75) +
             "{% endmacro %}{{ m(1) }}",
         deep);
  }
  ends("{% macro m(n) %}{{ " + Repeat("(1 if m(n) else [", 10) + "1" + Repeat("])", 10) +
           " }}{% endmacro %}{{ m(1) }}",
       deep);
  ends("{% macro m(n) %}{{ [" + Repeat("'' ~ m(n)|trim", 1) + "] }}{% endmacro %}{{ m(1) }}", deep);
  for (const std::string link : {" + 1", "|trim", ".a", "[0]", "()", " is defined", " if 1",
                                 " or 0", " and 1", " ~ 1", " * 1", "[1:]", "|trim()"}) {
    ends("{{ 1" + Repeat(link, 15'000) + " }}",
         "an expression of over 400 levels is not supported");
    ends("{{ " + Repeat("(", 30) + "1" + Repeat(Repeat(link, 300) + ")", 30) + " }}",
         "an expression of over 400 levels is not supported");
  }
  ends(Repeat("{% set x = [x] %}", 15'000), "a value nested deeper than 400 levels");
  ends(Repeat("{% set x = {'a': x} %}", 15'000), "a value nested deeper than 400 levels");
  ends("{{ 0" + Repeat(" + 1", 300) + " }}", "300");
}

TEST_CASE("a cut template is an error or text, never a crash") {
  const std::string source =
      "{%- set ns = namespace(a=1) %}{% for m in messages[::-1] if m.role == 'user' %}{{- "
      "m['content'] | trim ~ loop.index }}"
      "{% endfor %}{# c #}{{ ns.a if ns.a is defined else [1, {'k': (2, 'x\\n')}] }}";
  for (size_t n = 0; n <= source.size(); ++n) Render(source.substr(0, n));
}
