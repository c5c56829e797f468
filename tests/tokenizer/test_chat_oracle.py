"""Chat templates: the C++ interpreter against transformers' own Jinja environment."""

from __future__ import annotations

import datetime
import random
from typing import Any

import jinja2
import pytest
from transformers.utils import chat_template_utils

from tests.tokenizer.chat_templates import TEMPLATES
from tests.tokenizer.driver import Tool
from tests.tokenizer.generate import WORDS

NOON = 1_753_531_200  # 2025-07-26 12:00 UTC
TOOL = {
    "type": "function",
    "function": {"name": "f", "parameters": {"type": "object", "properties": {"x": {"type": "integer"}}}},
}


class Frozen(datetime.datetime):
    """A clock that stands still: what strftime_now sees."""

    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> Frozen:
        return cls.fromtimestamp(NOON, datetime.UTC)


def contexts(seed: int, count: int) -> list[dict[str, Any]]:
    """Seeded conversations: order of roles, odd texts, tools, missing and structured content."""
    rng = random.Random(seed)
    out = []
    for _ in range(count):

        def text() -> str:
            return (
                rng.choice(["", " ", "\n"])
                + " ".join(rng.choice(WORDS) for _ in range(rng.randint(0, 5)))
                + rng.choice(["", " \n", "\u3000"])
            )

        messages: list[dict[str, Any]] = [{"role": "system", "content": text()}] if rng.random() < 0.4 else []
        for i in range(rng.randint(1, 5)):
            role = "user" if i % 2 == 0 else "assistant"
            if rng.random() < 0.1:
                role = rng.choice(["tool", "user", "system"])
            messages.append({"role": role, "content": text()})
            if role == "assistant" and rng.random() < 0.3:
                messages[-1]["content"] = f"<think>\n{text()}\n</think>\n\n{text()}"
            if role == "assistant" and rng.random() < 0.15:
                messages[-1]["tool_calls"] = [
                    {
                        "type": "function",
                        "function": {"name": "f", "arguments": {"x": 1, "y": [text(), None, 1.5]}},
                    }
                ]
            if role == "user" and rng.random() < 0.1:
                messages[-1]["content"] = [{"type": "text", "text": text()}, {"type": "image"}]
        context: dict[str, Any] = {
            "messages": messages,
            "bos_token": "<s>",
            "eos_token": "</s>",
            "add_generation_prompt": rng.random() < 0.5,
        }
        if rng.random() < 0.3:
            context["tools"] = [TOOL]
        if rng.random() < 0.3:
            context["enable_thinking"] = rng.random() < 0.5
        out.append(context)
    return out


def theirs(source: str, context: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> str | None:
    """Return transformers' rendering, or None when it raises."""
    monkeypatch.setattr(chat_template_utils, "datetime", Frozen, raising=False)
    try:
        rendered: str = chat_template_utils._compile_jinja_template(source).render(**context)
    except (jinja2.TemplateError, TypeError):
        return None
    return rendered


@pytest.mark.parametrize("name", list(TEMPLATES))
def test_renders_as_transformers_does(tool: Tool, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rendered = 0
    for context in contexts(5, 150):
        want = theirs(TEMPLATES[name], context, monkeypatch)
        answer = tool.ask("chat", template=TEMPLATES[name], context=context, now=NOON)
        assert answer.get("text") == want, (answer, want, context)
        rendered += want is not None
    assert rendered >= 50  # the generator must not make mostly refused conversations


@pytest.mark.parametrize("tag", ["{% if x %}", "{%- if x %}", "{% if x -%}", "{%+ if x %}", "{% if x +%}"])
@pytest.mark.parametrize("end", ["{% endif %}", "{%- endif -%}", "{%+ endif +%}"])
@pytest.mark.parametrize(
    "around",
    ["A {}B{} C", "A\n  {}\n  B\n  {}\nC", "{}\n\nB{}\n\n", " {} B {} \n", "A\r\n {}\r\nB {{{{x}}}}\n{}\n"],
)
def test_white_space_control(tool: Tool, tag: str, end: str, around: str, monkeypatch: pytest.MonkeyPatch) -> None:
    source = around.format(tag, end)
    assert tool.ask("chat", template=source, context={"x": 1}).get("text") == theirs(source, {"x": 1}, monkeypatch)
