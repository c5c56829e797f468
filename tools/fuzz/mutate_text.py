"""Damage to IR text: bytes, tokens, lines."""

from __future__ import annotations

import random
import re
from collections.abc import Callable

TOKENS = re.compile(r"\s+|\w+|.")
JUNK = (
    "", "%", "{", "}", "[", "]", "(", ")", "<", ">", ",", ":", "=", "//", "#", "-", "*", "+", '"', "\\", "\n", "\r\n",
    "\t", "\0", "\x85", "\u2028", "\ud800", "é", "nan", "-nan", "inf", "-inf", "true", "none", "0", "-1", "1e999",
    "-0.0", "9" * 18, "9" * 19, "9" * 5000, "f32", "g32", "handle<kv_cache>", "handle<", "graph", "phase packed", "dim",
    "const", "file(", "data([", 'data(sha256 "', "declared(", "B*B*B", "B + ", "a" * 10_000, "[" * 5000,
    "concat((" * 300, "B*" * 5000, "//" * 2000, " " * 5000, "\\u{110000}", "\\u{d800}", "\\x", "(x:1)", "<r>",
)  # fmt: skip


def _byte(rng: random.Random, text: str) -> str:
    raw = bytearray(text.encode("utf-8", "surrogatepass"))
    for _ in range(rng.randint(1, 3)):
        if raw:
            at = rng.randrange(len(raw))
            match rng.randint(0, 2):
                case 0:
                    raw[at] = rng.randrange(256)
                case 1:
                    del raw[at]
                case _:
                    raw.insert(at, rng.randrange(256))
    return raw.decode("utf-8", rng.choice(("replace", "surrogateescape")))


def _token(rng: random.Random, text: str) -> str:
    tokens = TOKENS.findall(text)
    if not tokens:
        return rng.choice(JUNK)
    at, other = rng.randrange(len(tokens)), rng.randrange(len(tokens))
    match rng.randint(0, 4):
        case 0:
            tokens[at] = rng.choice(JUNK)
        case 1:
            tokens.insert(at, rng.choice(JUNK))
        case 2:
            del tokens[at]
        case 3:
            tokens[at], tokens[other] = tokens[other], tokens[at]
        case _:
            tokens[at] = tokens[other]
    return "".join(tokens)


def _line(rng: random.Random, text: str) -> str:
    lines = text.split("\n")
    at, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    match rng.randint(0, 3):
        case 0:
            del lines[at]
        case 1:
            lines.insert(at, lines[other])
        case 2:
            lines[at], lines[other] = lines[other], lines[at]
        case _:
            return text[: rng.randint(0, len(text))]
    return "\n".join(lines)


DAMAGE: tuple[Callable[[random.Random, str], str], ...] = (_byte, _token, _token, _line)


def damaged_text(rng: random.Random, text: str) -> str:
    """``text`` with one to three injuries."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        text = rng.choice(DAMAGE)(rng, text)
    return text
