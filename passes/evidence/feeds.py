"""What checks run graphs on: token ids of the calibration text, a short seeded sequence, and inputs by type."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from fretsaw.ir import Graph, ReferenceKvCache, TensorType, Value, evaluate, get_op
from fretsaw.ir.errors import PassError
from fretsaw.ir.ops.cache import is_cache
from fretsaw.ir.types import FLOATS, INTS, HandleType, numpy_dtype
from fretsaw.passes.evidence.cost import sequence_dims
from fretsaw.passes.evidence.options import EvidenceOptions

SEEDED = 16  # tokens of the sequence that f64 runs over
IDS = ("input_ids", "tokens")
SMALL = 4  # integers that index no table are drawn below this


@dataclass(frozen=True, eq=False)
class Sequence:
    """Token ids i64[n] that a check runs over, and where they come from."""

    name: str
    ids: np.ndarray
    source: str
    seed: int

    @property
    def sha256(self) -> str:
        """Over the ids as little-endian 64-bit integers."""
        return hashlib.sha256(self.ids.astype("<i8").tobytes()).hexdigest()

    def begins(self, other: Sequence) -> bool:
        """``other`` starts with these ids."""
        return bool(np.array_equal(other.ids[: self.ids.size], self.ids))

    def to_json(self) -> dict[str, str | int]:
        return {"source": self.source, "tokens": self.ids.size, "sha256": self.sha256}


def sequences(graph: Graph, options: EvidenceOptions, tokens: int) -> tuple[Sequence, Sequence]:
    """The calibration text cut to ``tokens`` ids, and :data:`SEEDED` seeded ones; a seeded text where none is given."""
    tokens = min(tokens, max(sequence_dims(graph, tokens).values(), default=tokens))  # the context of the model
    rng = np.random.default_rng(options.seed)
    drawn = rng.integers(0, vocabulary(graph), max(tokens, SEEDED))
    source = f"seed {options.seed}"
    short = Sequence("seeded", drawn[: min(SEEDED, tokens)], source, options.seed)
    if not options.calib:
        return Sequence("calibration", drawn[:tokens], source, options.seed), short
    ids = np.asarray(options.calib[:tokens], np.int64)
    _check_ids(ids, vocabulary(graph), options.calib_source)
    return Sequence("calibration", ids, options.calib_source or "token ids", options.seed), short


def _check_ids(ids: np.ndarray, size: int, source: str) -> None:
    outside = np.flatnonzero((ids < 0) | (ids >= size))
    if outside.size:
        raise PassError(
            f"calibration token {outside[0]} is id {ids[outside[0]]}, the model knows {size}",
            where=source,
            hint="tokenize the text with the tokenizer of this checkpoint",
        )


def vocabulary(graph: Graph) -> int:
    """Rows of the table that the token ids index; 100 where there is none."""
    sizes = [index_limit(graph, v) for v in graph.inputs if v.name in IDS]
    return next((s for s in sizes if s != SMALL), 100)


def index_limit(graph: Graph, value: Value) -> int:
    """Rows of the smallest table that integer input ``value`` indexes directly."""
    tables = {"embedding": ("ids", "table"), "take": ("index", "x")}
    rows: list[int] = []
    for use in graph.uses(value):
        index, table = tables.get(use.node.op, ("", ""))
        if use.slot == index:
            size = use.node[table].tensor.shape[0]
            rows += [size] if isinstance(size, int) else []
    return min(rows, default=SMALL)


def feed(graph: Graph, sequence: Sequence) -> dict[str, object]:
    """Inputs of ``graph`` by name for one sequence: ids and positions in the form that the graph wants, all rows, an
    empty KV cache; other inputs are drawn by type, the same for every graph that has them under the same name.

    Raises:
        PassError: a handle that is no KV cache.
    """
    count = sequence.ids.size
    env = sequence_dims(graph, count)
    return {v.name: _input(graph, v, sequence, env) for v in graph.inputs}


def _input(graph: Graph, value: Value, sequence: Sequence, env: dict[str, int]) -> object:
    if isinstance(value.type, HandleType):
        return fresh_cache(graph, value, sequence)
    kind = value.type
    assert isinstance(kind, TensorType)
    shape = tuple(evaluate(d, env) for d in kind.shape)
    dtype = numpy_dtype(kind.dtype)
    known = {**dict.fromkeys(IDS, sequence.ids), "positions": None, "rows": None}
    if value.name == "cu" and kind.dtype in INTS:  # all tokens are one sequence
        return np.array([0] * (shape[0] - 1) + [sequence.ids.size], dtype)
    if value.name in known and kind.dtype in INTS:
        data = known[value.name]
        line = np.arange(shape[-1]) if data is None else np.resize(data, shape[-1])
        return np.ascontiguousarray(np.broadcast_to(line, shape)).astype(dtype)
    words = np.frombuffer(hashlib.sha256(value.name.encode()).digest(), np.uint32)
    rng = np.random.default_rng([sequence.seed, *words.tolist()])
    if kind.dtype in FLOATS:
        return rng.standard_normal(shape).astype(dtype)
    return rng.integers(0, 2 if kind.dtype == "bool" else index_limit(graph, value), shape).astype(dtype)


def fresh_cache(graph: Graph, value: Value, sequence: Sequence) -> ReferenceKvCache:
    """An empty KV cache for one step that holds the whole sequence.

    Raises:
        PassError: ``value`` is another kind of handle.
    """
    if not is_cache(value.type):
        raise PassError(f"checks cannot make an object for input %{value.name}: {value.type}", where=graph.name)
    layers = [n.int_attr("layer") for n in graph.nodes if value in n.operands and "layer" in get_op(n.op).attrs]
    assert isinstance(value.type, HandleType)
    cache = ReferenceKvCache(max(layers, default=-1) + 1, format=value.type.format)
    cache.begin_step([sequence.ids.size])
    return cache
