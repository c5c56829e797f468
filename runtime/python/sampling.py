"""How tokens are drawn, and what a generation is asked for in C."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import c_char_p
from dataclasses import dataclass

from fretsaw.runtime.arguments import UINT64, flag, integer, real, strings
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
    """``fsw_generate_options``; keeps the stop strings alive as long as it lives.

    Raises:
        TypeError, ValueError: by the argument's name, what C would misread.
    """
    s = sampling or Sampling()
    raw = strings("stop", stop)
    stops = (c_char_p * len(raw))(*raw)
    return GenerateOptions(
        ctypes.sizeof(GenerateOptions),
        integer("max_new_tokens", max_new_tokens),
        real("temperature", s.temperature),
        integer("top_k", s.top_k),
        real("top_p", s.top_p),
        real("min_p", s.min_p),
        real("repetition_penalty", s.repetition_penalty),
        integer("seed", s.seed, UINT64),
        int(flag("ignore_eos", ignore_eos)),
        stops,
        len(raw),
    )
