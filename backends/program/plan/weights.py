"""Pack weights for the kernels that read them, each distinct one once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import numpy as np

from fretsaw.backends.program.codes import Grouped, pack_codes, weight_storage
from fretsaw.backends.program.options import WeightType
from fretsaw.backends.program.pack import PANEL, WIDE, convert, pack_glu_panels, pack_panels
from fretsaw.backends.program.steps import Tensor
from fretsaw.ir import Const, TensorType
from fretsaw.ir.errors import LoweringError
from fretsaw.ir.quantized import coded
from fretsaw.ir.types import DType


class TensorPool:
    """Tensors of the program by what they hold: asking twice for one packing of one constant gives one tensor.

    A tied embedding and output projection are one panel-packed tensor for that reason.
    """

    def __init__(self, weights: WeightType) -> None:
        self.weights = weights
        self._by_key: dict[Hashable, Tensor] = {}
        self._names: set[str] = set()

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        return tuple(self._by_key.values())

    def _add(
        self, key: Hashable, name: str, dtype: DType, shape: Sequence[int], make: Callable[[], np.ndarray]
    ) -> Tensor:
        if key not in self._by_key:
            full, i = name, 1
            while full in self._names:
                i += 1
                full = f"{name}.{i}"
            self._names.add(full)
            self._by_key[key] = Tensor(full, TensorType(dtype, tuple(shape)), make)
        return self._by_key[key]

    def storage(self, consts: Sequence[Const]) -> str:
        """How the weights of one kernel are stored.

        Raises:
            LoweringError: they are not all stored alike.
        """
        found = dict.fromkeys(self.weights if (parts := coded(c)) is None else parts.format for c in consts)
        if len(found) > 1:
            names = ", ".join(dict.fromkeys(c.source or str(c.type) for c in consts))
            what = f"weights that one kernel reads are stored as {' and as '.join(found)}: {names}"
            raise LoweringError(what, when="lowering for tvm", hint="give them one format")
        return next(iter(found))

    def panels(self, parts: Sequence[tuple[Const, np.ndarray | None]], name: str) -> Tensor:
        """Panels of the chosen output rows (None: all) of several weights [O, K], one after another: [N16, K, 16], or
        as in kernels/grouped.py where they are in codes."""
        columns = int(np.sum([_rows(c) if r is None else r.size for c, r in parts]))
        depth = _size(parts[0][0], 1)
        key = ("panels", *((c, None if r is None else r.tobytes()) for c, r in parts))
        if isinstance(kind := weight_storage(self.storage([c for c, _ in parts])), Grouped):
            shape = kind.shape(-(-columns // PANEL), depth)
            return self._add(key, name, "i32", shape, lambda: _pack_coded(parts, kind))

        def make() -> np.ndarray:
            rows = [c.load() if r is None else c.load()[r] for c, r in parts]
            return pack_panels(rows[0] if len(rows) == 1 else np.concatenate(rows), WIDE[self.weights])

        return self._add(key, name, self.weights, (-(-columns // PANEL), depth, PANEL), make)

    def table(self, weight: Const, name: str) -> Tensor:
        """[V, D] row by row, for lookups alone."""
        shape = (_size(weight, 0), _size(weight, 1))
        return self._add(
            ("table", weight), name, self.weights, shape, lambda: convert(weight.load(), WIDE[self.weights])
        )

    def glu_panels(self, weight: Const, gate: slice, up: slice, name: str) -> Tensor:
        """Panels of 8 gate columns, then their 8 up columns, from a weight [O, K] that holds both."""
        half, key = gate.stop - gate.start, ("glu", weight, gate.start, up.start)
        if isinstance(kind := weight_storage(self.storage([weight])), Grouped):
            groups = -(-half // (PANEL // 2))
            rows = glu_rows(half, gate.start, up.start)
            return self._add(key, name, "i32", kind.shape(groups, _size(weight, 1)),
                             lambda: _pack_coded([(weight, rows)], kind))  # fmt: skip
        shape = (-(-half // (PANEL // 2)), _size(weight, 1), PANEL)

        def make() -> np.ndarray:
            w = weight.load()
            return pack_glu_panels(w[gate], w[up], WIDE[self.weights])

        return self._add(key, name, self.weights, shape, make)

    def expert_panels(self, weight: Const, name: str) -> Tensor:
        """[E, N16, K, 16] panels of stacked weights [E, O, K], or codes of one width."""
        experts, rows, depth = (_size(weight, i) for i in range(3))
        if isinstance(kind := weight_storage(self.storage([weight])), Grouped):
            shape = (experts, *kind.shape(-(-rows // PANEL), depth))
            return self._add(("experts", weight), name, "i32", shape, lambda: _pack_coded([(weight, None)], kind))
        return self._add(
            ("experts", weight), name, self.weights, (experts, -(-rows // PANEL), depth, PANEL),
            lambda: pack_panels(weight.load(), WIDE[self.weights]),
        )  # fmt: skip

    def expert_glu_panels(self, weight: Const, interleaved: bool, name: str) -> Tensor:
        """[E, F8, K, 16]: per expert, panels of 8 gate columns and their 8 up columns; or codes of one width."""
        experts, rows, depth = (_size(weight, i) for i in range(3))
        key, half = ("expert_glu", weight, interleaved), rows // 2
        if isinstance(kind := weight_storage(self.storage([weight])), Grouped):
            order = glu_rows(half, 0, 1, 2) if interleaved else glu_rows(half, 0, half)
            shape = (experts, *kind.shape(-(-half // (PANEL // 2)), depth))
            return self._add(key, name, "i32", shape, lambda: _pack_coded([(weight, order)], kind))

        def make() -> np.ndarray:
            w = weight.load()
            gate, up = (w[:, 0::2], w[:, 1::2]) if interleaved else (w[:, :half], w[:, half:])
            return pack_glu_panels(gate, up, WIDE[self.weights])

        shape = (experts, -(-half // (PANEL // 2)), depth, PANEL)
        return self._add(key, name, self.weights, shape, make)

    def vector(self, parts: Sequence[tuple[Const, np.ndarray | None]], name: str) -> Tensor:
        """Small vectors (gains, biases, frequencies) in f32, chosen elements one after another."""
        size = int(np.sum([_rows(c) if r is None else r.size for c, r in parts]))
        key = ("vector", *((c, None if r is None else r.tobytes()) for c, r in parts))

        def make() -> np.ndarray:
            picked = [c.load().reshape(-1) if r is None else c.load().reshape(-1)[r] for c, r in parts]
            return np.concatenate(picked).astype(np.float32)

        return self._add(key, name, "f32", (size,), make)

    def whole(self, const: Const, name: str) -> Tensor:
        """A small weight in f32, in its own shape."""
        shape = tuple(_size(const, i) for i in range(len(const.type.shape)))
        return self._add(("whole", const), name, "f32", shape, lambda: const.load().astype(np.float32))

    def indices(self, key: Hashable, name: str, value: np.ndarray) -> Tensor:
        """An i32 array made by the planner itself."""
        return self._add(key, name, "i32", value.shape, lambda: value.astype(np.int32))

    def array(self, key: Hashable, name: str, value: np.ndarray) -> Tensor:
        """An f32 array made by the planner itself."""
        return self._add(key, name, "f32", value.shape, lambda: value.astype(np.float32))


def glu_rows(half: int, gate: int, up: int, step: int = 1) -> np.ndarray:
    """Rows of a weight in the order of gated panels, 8 of gate and 8 of up; -1 where a panel has none.

    Args:
        gate, up: Their first rows.
        step: From a row of gate to the next.
    """
    inside = np.arange(-(-half // 8) * 8).reshape(-1, 8)
    rows = np.stack([np.where(inside < half, inside * step + first, -1) for first in (gate, up)], axis=1)
    return np.asarray(rows.reshape(-1))


def _pack_coded(parts: Sequence[tuple[Const, np.ndarray | None]], kind: Grouped) -> np.ndarray:
    """Chosen rows of weights in codes [.., O, K], one after another; row -1 decodes to zeros."""
    planes: list[list[np.ndarray]] = [[], [], []]
    for const, rows in parts:
        found = coded(const)
        assert found is not None
        for plane, source in zip(planes, (found.codes, found.scales, found.minima), strict=True):
            array = source.load()
            picked = array if rows is None else np.where((rows >= 0)[:, None], array[..., rows, :], 0)
            plane.append(picked.astype(array.dtype, copy=False))
    codes, scales, minima = (np.concatenate(plane, axis=-2) for plane in planes)
    return pack_codes(codes, scales, minima, kind)


def _size(const: Const, axis: int) -> int:
    size = const.type.shape[axis]
    assert isinstance(size, int)
    return size


def _rows(const: Const) -> int:
    return _size(const, 0)
