"""``attention.json`` as typed records: what every head of a sparse artifact reads of a text.

The file comes from outside: every type is checked, nothing is assumed.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass

from fretsaw.ir.errors import ArtifactError

SECTION = "attention.json"
MOST_ROWS = 4096  # blocks of a mask's side; more could not be drawn
NUMBERS = ("density", "retained_mass", "error", "bound")
Plain = str | int | float | bool | None


@dataclass(frozen=True)
class Head:
    """Of one head on the text: share of causal blocks read, softmax mass in them, and what that costs its output.

    Args:
        error: Difference from dense attention, relative.
        bound: What the error cannot exceed, from the mass that was left out.
    """

    layer: int
    head: int
    method: str
    options: Mapping[str, Plain]
    density: float
    retained_mass: float
    error: float
    bound: float


@dataclass(frozen=True)
class Mask:
    """Which of ``rows`` x ``rows`` blocks a head reads; bits row by row, the first in the highest bit of a byte."""

    layer: int
    head: int
    rows: int
    bits: bytes


@dataclass(frozen=True)
class Attention:
    """The section: the text it was measured on, heads in order, and masks."""

    tokens: int
    source: str
    heads: tuple[Head, ...]
    masks: tuple[Mask, ...]


def read_attention(text: str) -> Attention:
    """Parse the section.

    Raises:
        ArtifactError: the first field that is missing, of the wrong type or out of range.
    """
    try:
        root = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{SECTION} is not JSON: {type(error).__name__}") from None
    heads = [_head(_whole(layer, "layer"), head) for layer in _list(root, "layers") for head in _list(layer, "heads")]
    masks = [_mask(mask) for mask in _list(root, "masks")] if "masks" in root else []
    return Attention(_whole(root, "tokens"), _text(root, "source"), tuple(heads), tuple(masks))


def _head(layer: int, found: object) -> Head:
    options = _get(found, "options", dict)
    assert isinstance(options, dict)
    plain = {str(k): v if isinstance(v, Plain) else json.dumps(v) for k, v in options.items()}
    numbers = [_number(found, name) for name in NUMBERS]
    return Head(layer, _whole(found, "head"), _text(found, "method"), plain, *numbers)


def _mask(found: object) -> Mask:
    rows = _whole(found, "rows")
    if not 1 <= rows <= MOST_ROWS:
        raise ArtifactError(f"{SECTION}: rows must be 1 to {MOST_ROWS}, is {rows:.6g}")
    try:
        bits = base64.b64decode(_text(found, "bits"), validate=True)
    except (binascii.Error, ValueError):
        raise ArtifactError(f"{SECTION}: bits is not base64") from None
    if len(bits) != -(-rows * rows // 8):
        raise ArtifactError(f"{SECTION}: a mask of {rows} rows has {len(bits)} bytes, expected {-(-rows * rows // 8)}")
    return Mask(_whole(found, "layer"), _whole(found, "head"), rows, bits)


def _get(found: object, key: str, kind: type | tuple[type, ...]) -> object:
    if not isinstance(found, dict) or key not in found:
        raise ArtifactError(f"{SECTION}: {key} is missing")
    value: object = found[key]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ArtifactError(f"{SECTION}: {key} has the wrong type: {type(value).__name__}")
    return value


def _list(found: object, key: str) -> list[object]:
    value = _get(found, key, list)
    assert isinstance(value, list)
    return value


def _text(found: object, key: str) -> str:
    return str(_get(found, key, str))


def _whole(found: object, key: str) -> int:
    value = _get(found, key, int)
    assert isinstance(value, int)
    if not 0 <= value < 2**31:
        raise ArtifactError(f"{SECTION}: {key} is out of range")
    return value


def _number(found: object, key: str) -> float:
    value = _get(found, key, (int, float))
    assert isinstance(value, int | float)
    if isinstance(value, int) and abs(value) > 2**53 or not math.isfinite(value):
        raise ArtifactError(f"{SECTION}: {key} is out of range")
    return float(value)
