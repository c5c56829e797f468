"""How tokens are drawn, and what a generation is asked for in C."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import c_char_p
from dataclasses import dataclass

from fretsaw.runtime.library import GenerateOptions


@dataclass(frozen=True)
class Sampling:
    """How tokens are drawn; the defaults are greedy. The same rules and order as transformers' generate."""

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int = 0


def native_options(
    max_new_tokens: int, sampling: Sampling | None, stop: Sequence[str], ignore_eos: bool
) -> GenerateOptions:
    """``fsw_generate_options``; keeps the stop strings alive as long as it lives."""
    s = sampling or Sampling()
    stops = (c_char_p * len(stop))(*(text.encode() for text in stop))
    return GenerateOptions(
        ctypes.sizeof(GenerateOptions),
        max_new_tokens,
        s.temperature,
        s.top_k,
        s.top_p,
        s.min_p,
        s.repetition_penalty,
        s.seed,
        int(ignore_eos),
        stops,
        len(stop),
    )
