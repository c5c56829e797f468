"""Plan: a file says which method each head has. What a search over heads writes, and what a person may write.

    [default]                     # heads that no entry names; without it they stay dense
    method = "xattention"
    threshold = 0.9

    [[head]]
    layer = 3                     # or layers = [3, 4]
    heads = [0, 2]                # without it all heads
    method = "lambda_mask"
    window = 1024

Blocks: as the methods say. Layers with nothing but dense heads keep dense attention.
Source: per-head tables as in MInference, arXiv:2407.02490.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

from fretsaw.ir.errors import UsageError
from fretsaw.passes.kit.options import fill
from fretsaw.passes.sparse.method import Method, Selection
from fretsaw.passes.sparse.methods.dense import Dense
from fretsaw.passes.sparse.options import Sparse
from fretsaw.passes.sparse.site import Site

Parts = tuple[tuple[tuple[int, ...], Sparse], ...]


@dataclass(frozen=True)
class Entry:
    """Options for some heads; no layers: all of them; no heads: all of a layer."""

    layers: tuple[int, ...]
    heads: tuple[int, ...]
    options: Sparse


@dataclass(frozen=True)
class Plan(Sparse):
    """Args:
    plan: The file, TOML.
    """

    method: Literal["plan"] = "plan"
    plan: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.plan:
            self.entries  # noqa: B018  a mistake in the file shows before a checkpoint is read

    def missing(self) -> str:
        return "" if self.plan else "plan=FILE"

    @cached_property
    def entries(self) -> tuple[Entry, ...]:
        """What the file says, the entry of the default last.

        Raises:
            UsageError: it cannot be read, or says something that is no plan.
        """
        return load_plan(Path(self.plan))

    def parts(self, layer: int, heads: int) -> Parts:
        of_head: dict[int, Sparse] = {}
        for entry in self.entries:
            if entry.layers and layer not in entry.layers:
                continue
            for head in entry.heads or range(heads):
                if head >= heads:
                    raise UsageError(f"the plan names head {head} of layer {layer}, which has {heads}", where=self.plan)
                of_head.setdefault(head, entry.options)
        options = [of_head.get(h, Dense()) for h in range(heads)]
        return tuple((tuple(h for h in range(heads) if options[h] == own), own) for own in dict.fromkeys(options))

    def planned(self) -> tuple[int, ...]:
        return tuple(sorted({n for e in self.entries for n in e.layers}))

    def whole_prompt(self) -> str:
        return next((reason for e in self.entries if (reason := e.options.whole_prompt())), "")

    def exact_dense(self, tokens: int) -> bool:
        return all(e.options.exact_dense(tokens) for e in self.entries)


def load_plan(path: Path) -> tuple[Entry, ...]:
    """The entries of a plan file, in its order, that of ``[default]`` last.

    Raises:
        UsageError: no such file, no TOML, an unknown key, method or option, or a head named twice.
    """
    try:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise UsageError(f"cannot read the plan {path}: {why}") from None
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"the plan is not TOML: {error}", where=str(path)) from None
    unknown = sorted(set(data) - {"default", "head"})
    if unknown:
        raise UsageError(f"unknown key {unknown[0]}", where=str(path), hint="a plan has [default] and [[head]]")
    heads, default = data.get("head", []), data.get("default")
    if not isinstance(heads, list) or not all(isinstance(h, dict) for h in heads):
        raise UsageError("every entry is a table: write [[head]]", where=str(path))
    out = [_entry(dict(h), f"{path}, entry {i}") for i, h in enumerate(heads, 1)]
    _check_once(out, path)
    if default is not None:
        if not isinstance(default, dict):
            raise UsageError("default is a table: write [default]", where=str(path))
        out.append(Entry((), (), _options(default, f"{path}, [default]")))
    if not out:
        raise UsageError("the plan is empty", where=str(path), hint="a plan has [default] and [[head]]")
    return tuple(out)


def _entry(data: dict[str, object], where: str) -> Entry:
    one, many = data.pop("layer", None), data.pop("layers", None)
    layers = _numbers([one] if one is not None else many, "layer", where)
    heads = _numbers(data.pop("heads", []), "heads", where)
    if not layers or (one is not None and many is not None):
        raise UsageError("an entry names its layer, or layers", where=where, hint="write layer = 3")
    return Entry(layers, heads, _options(data, where))


def _numbers(value: object, name: str, where: str) -> tuple[int, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or any(type(n) is not int or n < 0 for n in value):
        raise UsageError(f"{name} are numbers, counted from 0", where=where)
    return tuple(value)


def _options(data: Mapping[str, object], where: str) -> Sparse:
    try:
        made = fill("sparse_attention", Sparse(), data)
    except UsageError as error:
        raise UsageError(error.what, where=where, hint=error.hint) from None
    assert isinstance(made, Sparse)
    if isinstance(made, Plan) or made.layers or made.dense_layers or made.missing():
        what = "another plan" if isinstance(made, Plan) else made.missing() or "layers among its options"
        raise UsageError(f"an entry of a plan has a method and its options, not {what}", where=where)
    return made


def _check_once(entries: list[Entry], path: Path) -> None:
    seen: set[tuple[int, int | None]] = set()
    for i, entry in enumerate(entries, 1):
        for key in [(n, h) for n in entry.layers for h in entry.heads or (None,)]:
            if key in seen:
                raise UsageError(f"layer {key[0]}, head {key[1]} is named twice", where=f"{path}, entry {i}")
            seen.add(key)


def emit(site: Site, options: Plan) -> Selection:
    """Never called: a plan stands for the methods of its entries."""
    raise AssertionError("a plan has no ops of its own")


METHOD = Method("plan", Plan, emit, reads_scores=False, needs_calibration=True)
