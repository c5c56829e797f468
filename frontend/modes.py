"""How attention and experts leave the model: as single ops by our hooks, or written out by transformers' own code."""

from __future__ import annotations

from typing import Literal, get_args

from fretsaw.ir.errors import CaptureError

Attention = Literal["hook", "sdpa", "eager"]
Experts = Literal["hook", "batched", "eager"]


def check_modes(attention: str, experts: str) -> None:
    """Refuse what does not exist and what cannot be traced.

    Raises:
        CaptureError: an unknown mode, or the loop over experts.
    """
    for what, mode, known in (("attention", attention, get_args(Attention)), ("experts", experts, get_args(Experts))):
        if mode not in known:
            raise CaptureError(f"there is no capture mode {what}={mode!r}", hint=f"modes: {', '.join(known)}")
    if experts == "eager":
        raise CaptureError(
            "experts='eager' cannot be traced: transformers loops over the experts that a batch happens to hit, so the "
            "number of iterations depends on the data",
            hint="use 'hook' (one op) or 'batched' (the same sum, written without a loop)",
        )
