"""The C++ tokenizer against the Hugging Face library: identical ids and identical text, for each family."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from tokenizers import Tokenizer

from tests.tokenizer.driver import Tool, tool_path
from tests.tokenizer.generate import character, strings
from tests.tokenizer.tokenizers_zoo import SHARED, ZOO

COUNT = int(os.environ.get("FRETSAW_TOKENIZER_STRINGS", "500"))  # generated strings of a family
REAL_COUNT = max(COUNT, 10_000)  # and of smollm2, the one with a full vocabulary
TEXT = 200_000  # characters of each shared text; smollm2 gets all of it
# Blocks whose code points are all alike to a tokenizer: one in 16 of them is tried.
ALIKE = ((0x3400, 0x9FFF), (0xAC00, 0xD7A3), (0x17000, 0x18CFF), (0x20000, 0x2F7FF), (0x2FA20, 0x323AF))


@dataclass
class Pair:
    """One tokenizer on both sides."""

    name: str
    theirs: Tokenizer
    ours: Tool

    def encode(self, text: str, special: bool) -> list[int]:
        answer = self.ours.ask("encode", text=text, special=special)
        assert "ids" in answer, (self.name, text, answer)
        ids = answer["ids"]
        assert isinstance(ids, list)
        return ids

    def check_encode(self, text: str, special: bool) -> list[int]:
        want = self.theirs.encode(text, add_special_tokens=special).ids
        got = self.encode(text, special)
        assert got == want, (self.name, text, got[:50], want[:50])
        return want

    def check_decode(self, ids: list[int], skip: bool) -> None:
        if not ids and "BPEDecoder" in self.theirs.to_str():
            return  # the library panics on an empty list there (len - 1)
        want = self.theirs.decode(ids, skip_special_tokens=skip)
        assert self.ours.ask("decode", ids=ids, skip=skip)["text"] == want, (self.name, ids)
        chunks = self.ours.ask("stream", ids=ids, skip=skip)["chunks"]
        assert isinstance(chunks, list) and "".join(chunks) == want, (self.name, ids)


@pytest.fixture(scope="module", params=list(ZOO))
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    path = tool_path()
    if path is None:
        pytest.skip("fretsaw-tokenizer-tool is not built (FRETSAW_BUILD, build/cmake)")
    data = ZOO[request.param]()
    if data is None:
        pytest.skip(f"{request.param}: its package or ../shared is missing")
    theirs = Tokenizer.from_str(data.decode())
    theirs.no_truncation()
    theirs.no_padding()
    with Tool(path) as ours:
        answer = ours.ask("load", json=data.decode())
        assert answer.get("vocab_size") == theirs.get_vocab_size(), answer
        yield Pair(request.param, theirs, ours)


def special_texts(tokenizer: Tokenizer) -> list[str]:
    added = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
    return [*added, *[" " + text + " " for text in added[:20]], *[text + "s" for text in added[:20]]]


def test_generated_strings_encode_alike(pair: Pair) -> None:
    count = REAL_COUNT if pair.name == "smollm2" else COUNT
    for i, text in enumerate(strings(20, count, special_texts(pair.theirs))):
        ids = pair.check_encode(text, special=i % 2 == 0)
        if i % 4 == 0:
            pair.check_decode(ids, skip=i % 8 == 0)


@pytest.mark.parametrize("name", ["eval.txt", "calib.txt"])
def test_shared_text_encodes_and_decodes_alike(pair: Pair, name: str) -> None:
    path = SHARED / "text" / name
    if not path.exists():
        pytest.skip("../shared/text is missing (FRETSAW_SHARED)")
    text = path.read_text(encoding="utf-8")[: None if pair.name == "smollm2" else TEXT]
    ids = pair.check_encode(text, special=True)
    pair.check_decode(ids, skip=True)


def test_code_points_encode_alike(pair: Pair) -> None:
    rng = random.Random(7)
    points = [
        chr(c)
        for c in range(0x110000)
        if not 0xD800 <= c < 0xE000
        and (c < 0x323B0 or c % 97 == 0 or 0xE0000 <= c < 0xE0200)
        and (c % 16 == 0 or not any(first <= c <= last for first, last in ALIKE))
    ]
    for start in range(0, len(points), 512):
        pair.check_encode(" ".join(points[start : start + 512]), special=False)
        pair.check_encode("a".join(points[start : start + 512]), special=False)
    rng.shuffle(points)
    for start in range(0, len(points), 2048):
        pair.check_encode("".join(points[start : start + 2048]), special=False)


def test_random_ids_decode_alike(pair: Pair) -> None:
    """Sequences that no text encodes to: bytes out of place, special tokens anywhere, holes, ids past the end."""
    rng = random.Random(3)
    size = pair.theirs.get_vocab_size()
    for i in range(400):
        ids = [rng.randrange(size + 3) for _ in range(rng.randint(1, 30))]
        if i % 3 == 0:
            ids = [x % 300 for x in ids]  # byte tokens live there
        pair.check_decode([x for x in ids if pair.theirs.id_to_token(x) is not None] or [0], skip=i % 2 == 0)


def test_stream_chunks_hold_whole_characters(pair: Pair) -> None:
    text = "naïve 👩‍👩‍👧‍👦 漢字 " + "".join(character(random.Random(i)) for i in range(60))
    ids = pair.theirs.encode(text).ids
    chunks = pair.ours.ask("stream", ids=ids, skip=False)["chunks"]
    assert isinstance(chunks, list)  # JSON itself refuses half a character
    assert "".join(chunks) == pair.theirs.decode(ids, skip_special_tokens=False)
