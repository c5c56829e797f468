"""What a survey measured, in a file: another limit then costs a choice and a verification, no survey.

FILE: a zip of .npy arrays (what numpy.savez writes), read without pickle
  about       JSON: what was surveyed; a file that is about something else is refused, with what differs
  there       bool[L, C]            the candidate exists in the layer
  losses      f64[L, C, H, 7]       numbers of each head under each candidate, in the order of ``Loss``
  power       f64[L, H]             squared dense output
  selection   f64[L, C]             cost of choosing, over dense attention
  block_mass  f32[L, H, nQ, nQ]     softmax mass of key blocks
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import zipfile
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from fretsaw.ir import Graph, to_text
from fretsaw.ir.errors import UsageError
from fretsaw.ir.kv import BLOCK
from fretsaw.passes.evidence.feeds import Sequence as Text
from fretsaw.passes.sparse.calibrate.measure import Loss
from fretsaw.passes.sparse.calibrate.survey import Note, Survey, Surveyed, survey
from fretsaw.passes.sparse.options import Sparse

Array = np.ndarray
About = dict[str, object]
FORMAT = 1
ABOUT_BYTES = 1 << 20
DAMAGE = (ValueError, KeyError, OSError, EOFError, RecursionError, RuntimeError, zipfile.BadZipFile, zlib.error)


@dataclass(frozen=True)
class SavedSurvey:
    """A survey that is read from ``path`` where the file exists, and made and written there where it does not."""

    path: Path

    def __call__(
        self, graph: Graph, candidates: Sequence[Sparse], text: Text, first: int, note: Note = lambda t: None
    ) -> Survey:
        """As :func:`fretsaw.passes.sparse.calibrate.survey.survey`.

        Raises:
            UsageError: the file is about something else, is damaged, or cannot be written.
        """
        about = about_survey(graph, candidates, text, first)
        if self.path.exists():
            note(f"the survey of {self.path}")
            return read_survey(self.path, about, graph, candidates, text, first)
        if not self.path.absolute().parent.is_dir():  # said before minutes of work, not after
            raise UsageError(f"the survey {self.path} cannot be written: {self.path.parent} is no folder")
        found = survey(graph, candidates, text, first, note)
        write_survey(self.path, about, found)
        return found


def about_survey(graph: Graph, candidates: Sequence[Sparse], text: Text, first: int) -> About:
    """What decides the numbers of a survey, as plain data."""
    return {
        "format": FORMAT, "model": graph_digest(graph), "text": text.sha256, "tokens": int(text.ids.size),
        "first": first, "candidates": [_said(c) for c in candidates],
    }  # fmt: skip


def _said(options: Sparse) -> list[object]:
    plain: object = json.loads(json.dumps({**options.own(), "layers": options.layers, "dense": options.dense_layers}))
    return [options.method, plain]


def graph_digest(graph: Graph) -> str:
    """SHA-256 of the nodes and of the constants' bytes, wherever these lie; reads every weight once."""
    total = hashlib.sha256(to_text(replace(graph, consts={})).encode())
    for value, const in sorted(graph.consts.items(), key=lambda pair: pair[0].name):
        total.update(f"{value}".encode())
        total.update(np.ascontiguousarray(const.load()).data)
    return total.hexdigest()


def write_survey(path: Path, about: About, found: Survey) -> None:
    """Write a survey; the file appears only when it is whole.

    Raises:
        UsageError: it cannot be written.
    """
    layers = [found.layers[n] for n in sorted(found.layers)]
    width = len(fields(Loss))
    nothing = np.zeros((found.heads, width))
    losses = [[nothing if w is None else [astuple(x) for x in w] for w in layer.losses] for layer in layers]
    arrays = {
        "there": np.array([[w is not None for w in layer.losses] for layer in layers], bool),
        "losses": np.array(losses, np.float64), "power": np.array([layer.power for layer in layers], np.float64),
        "selection": np.array([layer.selection for layer in layers], np.float64),
        "block_mass": np.array([layer.block_mass for layer in layers], np.float32),
    }  # fmt: skip
    shapes = _shapes(len(layers), len(found.candidates), found.heads, found.text.ids.size)
    shaped: dict[str, Any] = {name: array.reshape(shapes[name][1]) for name, array in arrays.items()}
    said = np.frombuffer(json.dumps(about, sort_keys=True).encode(), np.uint8)
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("wb") as file:
            np.savez(file, about=said, **shaped)
        os.replace(part, path)
    except OSError as error:
        with suppress(OSError):
            part.unlink()
        what = f"cannot write the survey {path}: {error.strerror}"
        raise UsageError(what, hint="the option survey of method=auto names it") from None


def read_survey(path: Path, about: About, graph: Graph, candidates: Sequence[Sparse], text: Text, first: int) -> Survey:
    """The survey of a file that is about what is asked for.

    Raises:
        UsageError: it is about something else (says what), or no survey.
    """
    sites = {n.int_attr("layer"): n for n in graph.nodes if n.op == "cached_attention"}
    heads = next(iter(sites.values()))["q"].tensor.shape[1]
    assert isinstance(heads, int)
    shapes = _shapes(len(sites), len(candidates), heads, int(text.ids.size))
    try:
        with zipfile.ZipFile(path) as file:
            _same(path, _about(file), about)
            arrays = {name: _array(file, name, *shapes[name]) for name in shapes}
        _sound(arrays)
    except UsageError:
        raise
    except DAMAGE as error:
        raise _refused(path, f"it is damaged, or no survey: {error}") from None
    found = Survey(tuple(candidates), text, first)
    for i, number in enumerate(sorted(sites)):
        there = arrays["there"][i].tolist()
        losses = [tuple(Loss(*head) for head in way.tolist()) for way in arrays["losses"][i]]
        found.layers[number] = Surveyed(
            tuple(way if here else None for way, here in zip(losses, there, strict=True)), arrays["power"][i],
            tuple(arrays["selection"][i].tolist()), arrays["block_mass"][i],
        )  # fmt: skip
    return found


def _shapes(layers: int, ways: int, heads: int, tokens: int) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Dtype and shape of every array."""
    blocks, width = -(-tokens // BLOCK), len(fields(Loss))
    return {
        "there": ("|b1", (layers, ways)), "losses": ("<f8", (layers, ways, heads, width)),
        "power": ("<f8", (layers, heads)), "selection": ("<f8", (layers, ways)),
        "block_mass": ("<f4", (layers, heads, blocks, blocks)),
    }  # fmt: skip


def _about(file: zipfile.ZipFile) -> About:
    with file.open("about.npy") as member:
        np.lib.format.read_magic(member)
        np.lib.format.read_array_header_1_0(member)
        raw = member.read(ABOUT_BYTES + 1)
    if len(raw) > ABOUT_BYTES:
        raise ValueError("its description is too long")
    found = json.loads(raw)
    if not isinstance(found, dict):
        raise ValueError("its description is no object")
    return found


def _array(file: zipfile.ZipFile, name: str, dtype: str, shape: tuple[int, ...]) -> Array:
    """A member with exactly that dtype and shape: what a file says of sizes is compared, never allocated."""
    with file.open(f"{name}.npy") as member:
        if np.lib.format.read_magic(member) != (1, 0):
            raise ValueError(f"{name} is no array of version 1.0")
        found = np.lib.format.read_array_header_1_0(member)
        if found != (shape, False, np.dtype(dtype)):
            raise ValueError(f"{name} is {found[2]}{list(found[0])}, and {dtype}{list(shape)} is wanted")
        size = math.prod(shape) * np.dtype(dtype).itemsize
        raw = member.read(size)
        if len(raw) != size or member.read(1):
            raise ValueError(f"{name} has another size than it says")
    return np.frombuffer(raw, dtype).reshape(shape)


def _sound(arrays: dict[str, Array]) -> None:
    """Numbers that a survey can have."""
    for name, array in arrays.items():
        if array.dtype != bool and not (np.isfinite(array) & (array >= 0)).all():
            raise ValueError(f"{name} has numbers that no survey gives")
    if (arrays["losses"][..., 0] > 1).any():
        raise ValueError("losses has densities over 1")


def _same(path: Path, found: About, wanted: About) -> None:
    """Compare descriptions.

    Raises:
        UsageError: they differ; names the first difference.
    """
    numbers = {
        "format": "of another version of this file", "tokens": "of another number of tokens",
        "first": "of another first row (dense_until)",
    }  # fmt: skip
    for key, other in numbers.items():
        if found.get(key) != wanted[key]:
            raise _refused(path, f"it is {other}: {found.get(key)!r}, wanted {wanted[key]!r}")
    for key, other in {"model": "of another model", "text": "of another text"}.items():
        if found.get(key) != wanted[key]:
            raise _refused(path, f"it is {other}")
    theirs, mine = found.get("candidates"), wanted["candidates"]
    if theirs != mine:
        raise _refused(path, f"it is of other candidates: {_candidate(theirs, mine)}")


def _candidate(found: object, wanted: object) -> str:
    """How two lists of candidates differ."""
    assert isinstance(wanted, list)
    if not isinstance(found, list) or len(found) != len(wanted):
        return f"{len(found) if isinstance(found, list) else 'no list'}, wanted {len(wanted)}"
    i = next(i for i, (a, b) in enumerate(zip(found, wanted, strict=True)) if a != b)
    return f"number {i} is {str(found[i])[:200]}, wanted {wanted[i]}"


def _refused(path: Path, why: str) -> UsageError:
    return UsageError(f"the survey {path} cannot be used: {why}", hint="remove the file, or name another: survey=FILE")
