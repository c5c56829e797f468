"""A graph being made at random: values that exist, names and locations, and nodes that are appended."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from fretsaw.ir import (
    ArrayData,
    Attr,
    Const,
    DeclaredData,
    DigestData,
    DimLike,
    FileData,
    Graph,
    HandleType,
    Loc,
    Node,
    OpData,
    Shape,
    TensorType,
    Value,
    make_node,
    sym,
)  # fmt: skip
from fretsaw.ir.consts import ConstData
from fretsaw.ir.phases import PHASES
from fretsaw.ir.types import DTYPES, FLOATS, INTS, ITEMSIZE, DType, numpy_dtype

SYMBOLS = ("B", "S", "T", "n_1", "Batch")
ODD_NAMES = ("0", "-", "a.b/c", "weight;0", "é", "日本", "x'y", "//", "@", "phase", "const", "a" * 300, "true", "1e5")
MODULES = ("", "layers.0.self_attn.q_proj", "m", "a b", "x (y) <z>", "(", "//", "%x", "<a,b>", "ünï")
SOURCES = ("", "modeling_llama.py:214", "a(b).py:1", "c d.py:2")
RULES = ("fold_norm_gain", "cse", "r1", "a b")
FLOAT_POOL = (0.0, -0.0, 1.0, 1e-5, 0.1, -2.5, 1e300, 5e-324, math.pi, math.inf, -math.inf, math.nan)
INT_POOL = (0, 1, -1, 7, 2**31, -(2**63), 2**63 - 1)


class Maker:
    """A graph being made.

    Args:
        odd: Names, locations and attribute values that strain the text form.
    """

    def __init__(self, rng: random.Random, *, odd: bool = True) -> None:
        self.rng, self.odd = rng, odd
        names = rng.sample(SYMBOLS, rng.randint(1, 3))
        self.dims = {n: (low := rng.randint(0, 3), low + rng.choice((0, 1, 64, 2**20))) for n in names}
        self.phase = rng.choice(PHASES)
        self.inputs: list[Value] = []
        self.consts: dict[Value, Const] = {}
        self.nodes: list[Node] = []
        self.values: list[Value] = []
        self.names: set[str] = set()

    def chance(self, p: float) -> bool:
        return self.rng.random() < p

    def fresh(self, base: str) -> str:
        if self.odd and self.chance(0.1):
            base = self.rng.choice(ODD_NAMES)
        name, i = base, 0
        while name in self.names:
            i += 1
            name = f"{base}_{i}"
        self.names.add(name)
        return name

    def dim(self) -> DimLike:
        """A size: mostly a small integer, else a polynomial over the symbols."""
        if self.chance(0.65):
            return self.rng.choice((1, 2, 3, 4, 4, 8, 0 if self.odd and self.chance(0.05) else 5))
        dim: DimLike = sym(self.rng.choice(list(self.dims)))
        if self.chance(0.2):
            dim = dim * sym(self.rng.choice(list(self.dims)))
        return dim * self.rng.choice((1, 1, 2, 3)) + self.rng.choice((0, 0, 0, 1, 5))

    def shape(self, low: int = 0, high: int = 4) -> Shape:
        return tuple(self.dim() for _ in range(self.rng.randint(low, high)))

    def dtype(self, among: Sequence[DType] = DTYPES) -> DType:
        return self.rng.choice(sorted(among))

    def number(self) -> float:
        """A finite or odd float."""
        return self.rng.choice(FLOAT_POOL) if self.odd and self.chance(0.3) else round(self.rng.uniform(-9, 9), 3)

    def loc(self) -> Loc:
        if not self.odd or self.chance(0.5):
            return Loc()
        rules = tuple(self.rng.sample(RULES, self.rng.randint(0, 2)))
        return Loc(self.rng.choice(MODULES), self.rng.choice(SOURCES), rules)

    def pick(self, dtypes: Sequence[DType] | frozenset[DType] = DTYPES, low: int = 0, high: int = 6) -> Value:
        """An existing tensor of one of ``dtypes`` and a rank in range, or a new one."""
        found = [
            v for v in self.values[-12:]
            if isinstance(v.type, TensorType) and v.type.dtype in dtypes and low <= v.type.rank <= high
        ]  # fmt: skip
        if found and self.chance(0.85):
            return self.rng.choice(found)
        return self.leaf(TensorType(self.dtype(sorted(dtypes)), self.shape(low, min(high, 4))))

    def float(self, low: int = 0, high: int = 6) -> Value:
        return self.pick(FLOATS, low, high)

    def tensor(self, dtype: DType, shape: Shape) -> Value:
        """A value of exactly this type."""
        want = TensorType(dtype, shape)
        found = [v for v in self.values if v.type == want]
        return self.rng.choice(found) if found and self.chance(0.6) else self.leaf(want)

    def ints(self, shape: Shape) -> Value:
        return self.tensor(self.dtype(sorted(INTS)), shape)

    def handle(self) -> Value:
        found = [v for v in self.inputs if isinstance(v.type, HandleType)]
        if found:
            return found[0]
        value = Value(self.fresh("kv"), HandleType("kv_cache"))
        self.inputs.append(value)
        return value

    def leaf(self, want: TensorType) -> Value:
        """A new input, constant or ``full`` of this type."""
        kind = self.rng.random()
        if want.is_static and kind < 0.5:
            value = Value(self.fresh("w"), want)
            self.consts[value] = Const(want, self.data(want, value.name))
        elif kind < 0.9:
            value = Value(self.fresh("x"), want)
            self.inputs.append(value)
        else:
            return self.emit("full", (), {"shape": want.shape, "dtype": want.dtype, "value": self.rng.choice((0, 1.5))})
        self.values.append(value)
        return value

    def data(self, want: TensorType, name: str, depth: int = 0) -> ConstData:
        shape = tuple(d for d in want.shape if isinstance(d, int))
        numel = math.prod(shape)
        match self.rng.randint(0, 5):
            case 0:
                stored = self.dtype(sorted(FLOATS)) if want.dtype in FLOATS else want.dtype
                return FileData(
                    Path("dir/a b.safetensors"), 8 * self.rng.randint(0, 99), numel * ITEMSIZE[stored], stored, shape
                )
            case 1:
                return DigestData(f"{self.rng.getrandbits(64):016x}")
            case 2:
                return DeclaredData(name if self.chance(0.5) else 'other "name"\n\u2028', want)
            case 3 if depth < 3:
                return self.computed(want, name, depth)
            case _:
                return ArrayData(self.array(want.dtype, shape))

    def computed(self, want: TensorType, name: str, depth: int) -> OpData:
        """An op on constants that gives ``want``."""

        def inner(shape: Shape, dtype: DType = want.dtype) -> Const:
            kind = TensorType(dtype, shape)
            return Const(kind, self.data(kind, f"{name}.in", depth + 1))

        if want.dtype == "i64" and want.rank and self.chance(0.5):
            k = want.shape[-1]
            if isinstance(k, int) and k > 0:
                return OpData("topk", (inner((*want.shape[:-1], max(9, k)), "f32"),), (("k", k),), 1)
        if want.rank and self.chance(0.5):
            axis = self.rng.randrange(want.rank)
            part = (*want.shape[:axis], 1, *want.shape[axis + 1 :])
            count = want.shape[axis]
            if isinstance(count, int) and 0 < count < 9:
                return OpData("concat", tuple(inner(part) for _ in range(count)), (("axis", axis),))
        if self.chance(0.5):
            return OpData("cast", (inner(want.shape, self.dtype()),), (("dtype", want.dtype),))
        return OpData("reshape", (inner((want.numel,)),), (("shape", want.shape),))

    def array(self, dtype: DType, shape: tuple[int, ...]) -> np.ndarray:
        kind = numpy_dtype(dtype)
        count = math.prod(shape)
        flat: list[object]
        if dtype in FLOATS:
            flat = [self.number() for _ in range(count)]
        elif dtype == "bool":
            flat = [self.chance(0.5) for _ in range(count)]
        else:
            info = np.iinfo(kind.type)  # type: ignore[type-var]
            flat = [min(max(self.rng.choice((*INT_POOL, 3, 2)), int(info.min)), int(info.max)) for _ in range(count)]
        with np.errstate(all="ignore"):
            return np.array(flat, dtype=kind).reshape(shape)

    def emit(self, op: str, operands: Sequence[Value], attrs: Mapping[str, Attr]) -> Value:
        """Append a node; returns its first result, or its first operand where it has none."""
        probe = make_node(op, operands, attrs, [op])
        node = make_node(op, operands, attrs, [self.fresh(op) for _ in probe.results], self.loc())
        self.nodes.append(node)
        self.values += node.results
        return node.results[0] if node.results else operands[0]

    def finish(self) -> Graph:
        choices = [v for v in self.values if isinstance(v.type, TensorType)]
        outputs = self.rng.sample(choices, min(len(choices), self.rng.randint(0, 3)))
        name = self.rng.choice(ODD_NAMES) if self.odd and self.chance(0.2) else "g"
        return Graph(name, tuple(self.inputs), self.consts, tuple(self.nodes), tuple(outputs), self.dims, self.phase)
