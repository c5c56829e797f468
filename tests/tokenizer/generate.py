"""Seeded strings of mixed Unicode: every plane, marks, joiners, scripts, control characters, special tokens."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

SCRIPTS = [
    (0x20, 0x7E), (0x20, 0x7E), (0xA0, 0x24F), (0x300, 0x36F), (0x370, 0x3FF), (0x400, 0x52F), (0x590, 0x6FF),
    (0x900, 0xDFF), (0xE00, 0xEFF), (0x1100, 0x11FF), (0x1E00, 0x1FFF), (0x2000, 0x206F), (0x2070, 0x2BFF),
    (0x3000, 0x30FF), (0x3130, 0x318F), (0x4E00, 0x9FFF), (0xAC00, 0xD7A3), (0xF900, 0xFAFF), (0xFB00, 0xFDFF),
    (0xFE00, 0xFFFF), (0x10000, 0x1FFFF), (0x1D400, 0x1D7FF), (0x1F300, 0x1FAFF), (0x20000, 0x323AF),
    (0xE0000, 0xE01EF), (0x0, 0x1F), (0x7F, 0x9F), (0x0, 0x10FFFF),
]  # fmt: skip
SPACES = [
    " ",
    "  ",
    "   ",
    "\n",
    "\n\n",
    "\r\n",
    "\t",
    " \n ",
    "\u00a0",
    "\u2003",
    "\u3000",
    "\u200b",
    "\u2028",
    "\x0b",
    "\x85",
    " " * 26,
]
WORDS = [
    "the", "don't", "I'LL", "we've", "ſ", "'S", "K'D", "naïve", "Émile", "NASA", "İstanbul", "ΣΊΣΥΦΟΣ", "straße",
    "ﬁ", "漢字", "かな", "한국어", "각", "مرحبا", "שלום", "हिन्दी", "ไทย", "123", "12345.678", "٣٤٥", "½", "Ⅻ", "²",
    "👩‍👩‍👧‍👦", "🏳️‍🌈", "👍🏽", "🇩🇪", "e\u0301", "a\u0323\u0307", "\u0344", "Å", "\u212b", "def f(x):", "x_1",
    "__init__", "</s", "<|", "▁", "##ing", "...", "?!", "<0x41>", "Ġ",
]  # fmt: skip


def character(rng: random.Random) -> str:
    low, high = rng.choice(SCRIPTS)
    c = rng.randint(low, high)
    return "x" if 0xD800 <= c < 0xE000 else chr(c)


def strings(seed: int, count: int, special: Sequence[str]) -> Iterator[str]:
    """Yield ``count`` strings, the same for the same seed; ``special`` are mixed in."""
    rng = random.Random(seed)
    for _ in range(count):
        parts = []
        for _ in range(rng.randint(0, 12)):
            kind = rng.random()
            if kind < 0.35:
                parts.append("".join(character(rng) for _ in range(rng.randint(1, 6))))
            elif kind < 0.6:
                parts.append(rng.choice(WORDS))
            elif kind < 0.9:
                parts.append(rng.choice(SPACES))
            elif special:
                parts.append(rng.choice(special))
        yield "".join(parts)
