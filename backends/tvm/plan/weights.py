"""Pack weights for the kernels that read them, each distinct one once."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import cast

import numpy as np

from fretsaw.backends.tvm.kernels.isa import PANEL
from fretsaw.backends.tvm.kernels.pack import convert, pack_glu_panels, pack_panels
from fretsaw.backends.tvm.specs import WIDE
from fretsaw.backends.tvm.steps import Tensor
from fretsaw.ir import Const, TensorType
from fretsaw.ir.errors import LoweringError
from fretsaw.ir.types import DType


class TensorPool:
    """Tensors of the program by what they hold: asking twice for one packing of one constant gives one tensor.

    A tied embedding and output projection are one panel-packed tensor for that reason.
    """

    def __init__(self) -> None:
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

    def panels(self, parts: Sequence[tuple[Const, np.ndarray | None]], name: str) -> Tensor:
        """[N16, K, 16] panels of the chosen output rows (None: all) of several weights [O, K], one after another."""
        columns = int(np.sum([_rows(c) if r is None else r.size for c, r in parts]))
        depth = _size(parts[0][0], 1)
        key = ("panels", *((c, None if r is None else r.tobytes()) for c, r in parts))
        stored = _stored([c for c, _ in parts], name)

        def make() -> np.ndarray:
            rows = [c.load() if r is None else c.load()[r] for c, r in parts]
            return pack_panels(rows[0] if len(rows) == 1 else np.concatenate(rows), WIDE[stored])

        return self._add(key, name, stored, (-(-columns // PANEL), depth, PANEL), make)

    def table(self, weight: Const, name: str) -> Tensor:
        """[V, D] row by row, for lookups alone."""
        shape, stored = (_size(weight, 0), _size(weight, 1)), _stored([weight], name)
        return self._add(("table", weight), name, stored, shape, lambda: convert(weight.load(), WIDE[stored]))

    def glu_panels(self, weight: Const, gate: slice, up: slice, name: str) -> Tensor:
        """[F8, K, 16]: 8 gate columns, then their 8 up columns, from a weight [O, K] that holds both."""
        half, stored = gate.stop - gate.start, _stored([weight], name)
        shape = (-(-half // (PANEL // 2)), _size(weight, 1), PANEL)

        def make() -> np.ndarray:
            w = weight.load()
            return pack_glu_panels(w[gate], w[up], WIDE[stored])

        return self._add(("glu", weight, gate.start, up.start), name, stored, shape, make)

    def expert_panels(self, weight: Const, name: str) -> Tensor:
        """[E, N16, K, 16] panels of stacked weights [E, O, K]."""
        experts, rows, depth = (_size(weight, i) for i in range(3))
        stored = _stored([weight], name)
        return self._add(
            ("experts", weight), name, stored, (experts, -(-rows // PANEL), depth, PANEL),
            lambda: pack_panels(weight.load(), WIDE[stored]),
        )  # fmt: skip

    def expert_glu_panels(self, weight: Const, interleaved: bool, name: str) -> Tensor:
        """[E, F8, K, 16]: per expert, panels of 8 gate columns and their 8 up columns."""
        experts, rows, depth = (_size(weight, i) for i in range(3))
        stored = _stored([weight], name)

        def make() -> np.ndarray:
            w, half = weight.load(), rows // 2
            gate, up = (w[:, 0::2], w[:, 1::2]) if interleaved else (w[:, :half], w[:, half:])
            return pack_glu_panels(gate, up, WIDE[stored])

        shape = (experts, -(-(rows // 2) // (PANEL // 2)), depth, PANEL)
        return self._add(("expert_glu", weight, interleaved), name, stored, shape, make)

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

    def array(self, key: Hashable, name: str, value: np.ndarray) -> Tensor:
        """An f32 array made by the planner itself."""
        return self._add(key, name, "f32", value.shape, lambda: value.astype(np.float32))


def _stored(weights: Sequence[Const], name: str) -> DType:
    """The format of one packed tensor of ``weights``: theirs; where they differ, f32, which holds all of them exactly.

    Raises:
        LoweringError: no kernel reads that format.
    """
    formats = {const.format for const in weights}
    for unknown in sorted(formats - WIDE.keys()):
        raise LoweringError(
            f"the tvm backend has no kernels for weights in {unknown}, only in {', '.join(WIDE)}", where=f"%{name}",
            hint="store_weights changes the format of weights",
        )  # fmt: skip
    return cast("DType", formats.pop()) if len(formats) == 1 else "f32"


def _size(const: Const, axis: int) -> int:
    size = const.type.shape[axis]
    assert isinstance(size, int)
    return size


def _rows(const: Const) -> int:
    return _size(const, 0)
