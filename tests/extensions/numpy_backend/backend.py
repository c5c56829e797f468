"""A backend whose programs are IR text, run by the ops' NumPy references: slow, and small enough to read in a minute.

code/numpy    the packed graph as text, weights declared by name and type
weights       every constant of the graph, as NumPy has it
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version

from fretsaw.backends.backend import Backend, ModelFacts, Work
from fretsaw.backends.built import Built, Variant
from fretsaw.backends.lowering import Answer, Lowering, Refusal
from fretsaw.backends.tensor import Tensor
from fretsaw.ir import Const, DeclaredData, Graph, to_text
from fretsaw.ir.errors import LoweringError, UsageError
from fretsaw.ir.phases import legal_ops

REFERENCE = Lowering("its NumPy reference")
DECODERS = Refusal("this backend runs decoders only")


@dataclass(frozen=True)
class NumpyOptions:
    """How to build.

    Args:
        chunk_tokens: Most tokens of one step.

    Raises:
        UsageError: fewer than one.
    """

    chunk_tokens: int = 16

    def __post_init__(self) -> None:
        if self.chunk_tokens < 1:
            raise UsageError(f"chunk_tokens must be at least 1, is {self.chunk_tokens}")


class NumpyBackend(Backend[NumpyOptions]):
    """Programs as IR text, run in Python by the NumPy references of the ops."""

    name = "numpy"
    options = NumpyOptions
    phase = "packed"

    def lowerings(self) -> Mapping[str, Answer]:
        return {op: DECODERS if op.startswith("segment_") else REFERENCE for op in legal_ops(self.phase)}

    def build(self, graph: Graph, options: NumpyOptions, model: ModelFacts, work: Work) -> Built:
        work.progress("writing text")
        cache = cache_of(graph)
        declared = {value: Const(c.type, DeclaredData(value.name, c.type)) for value, c in graph.consts.items()}
        code = to_text(replace(graph, consts=declared)).encode()
        tensors = [Tensor(value.name, const.type, const.load) for value, const in graph.consts.items()]
        pair = cache["key_size"] + cache["value_size"]
        planes = [
            {"name": "k_pages", "dtype": "f32", "shape": [cache["key_size"], 1]},
            {"name": "v_pages", "dtype": "f32", "shape": [1, cache["value_size"]]},
        ]
        return Built(
            [Variant("numpy", code, loader="numpy")],
            tensors,
            {**cache, "dtype": "f32", "planes": planes},
            {"entry": graph.name, "chunk_tokens": options.chunk_tokens},
            {
                "weights_bytes": sum(tensor.nbytes for tensor in tensors),
                "kv_bytes_per_token": cache["layers"] * cache["kv_heads"] * pair * 4,
                "workspace_bytes": 0,  # NumPy allocates as it goes
            },
            launches=len(graph.nodes),
            detail=f"{len(code)} bytes of text",
            producer={"numpy": version("numpy")},
        )


def cache_of(graph: Graph) -> dict[str, int]:
    """Layers, key-value heads and sizes of the cache.

    Raises:
        LoweringError: layers differ in them, which the manifest cannot say.
    """
    shapes = [(*n["k"].tensor.shape[1:], n["v"].tensor.shape[2]) for n in graph.nodes if n.op == "kv_append"]
    if len(set(shapes)) != 1:
        raise LoweringError(f"layers must have one shape of keys and values, have {sorted(map(str, set(shapes)))}")
    heads, key, value = (n for n in shapes[0] if isinstance(n, int))
    return {"layers": len(shapes), "kv_heads": heads, "key_size": key, "value_size": value, "page_tokens": 1}


backend = NumpyBackend()
