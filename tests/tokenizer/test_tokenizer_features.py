"""The compiler's lists of supported features are the runtime's, and refusals name what they refuse."""

from __future__ import annotations

import json

import pytest

from fretsaw.frontend import chat_template, tokenizer
from fretsaw.ir.errors import CaptureError
from tests.tokenizer.chat_templates import TEMPLATES
from tests.tokenizer.driver import Tool
from tests.tokenizer.tokenizers_zoo import ZOO


def test_lists_agree_with_the_runtime(tool: Tool) -> None:
    theirs = tool.ask("features")
    chat = theirs.pop("chat")
    assert theirs == {kind: list(names) for kind, names in tokenizer.SUPPORTED.items()}
    assert chat == {kind: list(names) for kind, names in chat_template.SUPPORTED.items()}


@pytest.mark.parametrize("name", [n for n in ZOO if n != "smollm2"])
def test_accepts_every_family(name: str) -> None:
    data = ZOO[name]()
    if data is None:
        pytest.skip(f"{name}: its package or ../shared is missing")
    tokenizer.check_tokenizer(data)


@pytest.mark.parametrize("name", list(TEMPLATES))
def test_accepts_every_template(name: str) -> None:
    chat_template.check_chat_template(TEMPLATES[name])


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("normalizer", {"type": "Nmt"}, "normalizer 'Nmt' is not supported"),
        (
            "normalizer",
            {"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "Precompiled"}]},
            "normalizer.normalizers[1]",
        ),
        ("pre_tokenizer", {"type": "UnicodeScripts"}, "pre_tokenizer 'UnicodeScripts' is not supported"),
        ("decoder", {"type": "CTC"}, "decoder 'CTC' is not supported"),
        ("model", {"type": "Unigram", "vocab": []}, "model 'Unigram' is not supported"),
    ],
)
def test_both_sides_refuse_by_name(tool: Tool, part: str, value: object, message: str) -> None:
    data = json.loads(ZOO["llama3"]() or b"")
    data[part] = value
    with pytest.raises(CaptureError) as caught:
        tokenizer.check_tokenizer(json.dumps(data).encode())
    assert message in str(caught.value)
    answer = tool.ask("load", json=json.dumps(data))
    assert answer["status"] == "unsupported" and message.split("[")[0] in str(answer["error"])


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("\n{{ x|wordwrap }}", "the filter 'wordwrap' is not supported"),
        ("\n{% if x is sameas(y) %}{% endif %}", "the test 'sameas' is not supported"),
        ("\n{% include 'a' %}", "include"),
        ("\n{{ 1 < 2 < 3 }}", "chained comparison"),
        ("\n{{ f(*x) }}", "an argument with *"),
    ],
)
def test_templates_are_refused_by_both(tool: Tool, source: str, message: str) -> None:
    with pytest.raises(CaptureError) as caught:
        chat_template.check_chat_template(source)
    assert message in str(caught.value) and "line 2" in str(caught.value)
    answer = tool.ask("chat", template=source, context={})
    assert answer["status"] == "unsupported" and message in str(answer["error"]) and "line 2" in str(answer["error"])


def test_unknown_methods_are_refused(tool: Tool) -> None:
    with pytest.raises(CaptureError, match="the method 'encode' is not supported"):
        chat_template.check_chat_template("{{ 'a'.encode() }}")
    assert "the method 'encode'" in str(tool.ask("chat", template="{{ 'a'.encode() }}", context={})["error"])
