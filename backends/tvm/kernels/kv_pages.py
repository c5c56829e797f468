"""Cache pages as the kernels read and write them: f32 in registers, whatever the storage (backends/tvm/kv_storage.py).

Widening f16 and int8 codes is exact. The scales of int8 are applied where they cost least, to a score and to a weight,
so a page gives the same bits widened in passing (decode) or once for all rows of a tile (prefill).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from fretsaw.backends.tvm.kernels.emit import (
    Buffer,
    Expr,
    Index,
    Kernel,
    bind,
    fmax,
    load,
    loop,
    scratch,
    select,
    splat,
    store,
    vtype,
    when,
    workspace,
)
from fretsaw.backends.tvm.kernels.rows import for_columns, max_lanes
from fretsaw.backends.tvm.kv_storage import KvType, page_shapes
from fretsaw.ir.formats import F16_MAX, INT8_MAX, SMALLEST

TVM_TYPE: dict[KvType, str] = {"f32": "float32", "f16": "float16", "int8": "int8"}
_SCALE = 4  # bytes


def _widen(value: Expr, lanes: int) -> Expr:
    if str(value.ty.dtype).startswith("int8"):
        value = tirx.Cast(vtype("int32", lanes), value)
    return tirx.Cast(vtype("float32", lanes), value)


@dataclass(frozen=True)
class KvPages:
    """The two pools of pages."""

    kv: KvType
    k: Buffer
    v: Buffer
    key_size: int
    value_size: int
    page: int

    @staticmethod
    def declare(k: Kernel, kv: KvType, pages: Index, key: int, value: int, page: int) -> KvPages:
        """Declare the next two arguments of a kernel: keys, then values."""
        shapes = page_shapes(key, value, page, kv)
        pools = [k.arg(name, (pages, *s), TVM_TYPE[kv]) for name, s in zip(("k_pages", "v_pages"), shapes, strict=True)]
        return KvPages(kv, pools[0], pools[1], key, value, page)

    def _load(self, pool: Buffer, page: Expr, row: Expr, col: Expr, width: int, lanes: int) -> Expr:
        if self.kv == "f32":
            return load(pool, [page, row, col], lanes)
        return _widen(load(pool, [page, row * width + col] if self.kv == "int8" else [page, row, col], lanes), lanes)

    def _store(self, pool: Buffer, page: Expr, row: Expr, col: Expr, width: int, value: Expr) -> None:
        store(pool, [page, row * width + col] if self.kv == "int8" else [page, row, col], value)

    def keys(self, page: Expr, e: Expr, slot: Expr, lanes: int) -> Expr:
        """Element ``e`` of the keys of ``lanes`` slots, without their scales."""
        return self._load(self.k, page, e, slot, self.page, lanes)

    def values(self, page: Expr, slot: Expr, col: Expr, lanes: int) -> Expr:
        """``lanes`` elements of the value in ``slot``, without its scale."""
        return self._load(self.v, page, slot, col, self.value_size, lanes)

    def key_scales(self, page: Expr, slot: Expr, lanes: int) -> Expr | None:
        """Scales of the keys of ``lanes`` slots, None where the storage has none."""
        return self._scales(self.k, page, self.key_size, slot, lanes)

    def value_scales(self, page: Expr, slot: Expr, lanes: int) -> Expr | None:
        """Scales of the values of ``lanes`` slots, None where the storage has none."""
        return self._scales(self.v, page, self.value_size, slot, lanes)

    def _scales(self, pool: Buffer, page: Expr, size: int, slot: Expr, lanes: int) -> Expr | None:
        if self.kv != "int8":
            return None
        raw = load(pool, [page, self.page * size + slot * _SCALE], lanes * _SCALE)
        return T.reinterpret(vtype("float32", lanes), raw)

    def append(self, page: Expr, slot: Expr, key: Buffer, value: tuple[Buffer, Sequence[Index]], lanes: int) -> None:
        """Store the key ``key`` [E] and the value that starts at index ``value[1]`` of ``value[0]``."""
        *head, start = value[1]
        factors = self._append_scales(page, slot, key, value, lanes)

        def store_value(c: Expr, n: int) -> None:
            x = load(value[0], [*head, start + c], n)
            self._store(self.v, page, slot, c, self.value_size, self._narrow(x, factors[1], n))

        with loop(self.key_size) as c:
            self._store(self.k, page, c, slot, self.page, self._narrow(load(key, [c]), factors[0], 1))
        for_columns(self.value_size, lanes, store_value)

    def _append_scales(
        self, page: Expr, slot: Expr, key: Buffer, value: tuple[Buffer, Sequence[Index]], lanes: int
    ) -> list[Expr | None]:
        if self.kv != "int8":
            return [None, None]
        factors: list[Expr | None] = []
        for pool, size, buf, at in ((self.k, self.key_size, key, [0]), (self.v, self.value_size, *value)):
            scale, factor = scale_of(buf, at, size, lanes)
            raw = T.reinterpret(vtype("int8", _SCALE), scale)
            store(pool, [page, self.page * size + slot * _SCALE], raw)
            factors.append(factor)
        return factors

    def _narrow(self, x: Expr, factor: Expr | None, lanes: int) -> Expr:
        if self.kv == "f32":
            return x
        if factor is None:
            low, high = splat(-F16_MAX, lanes), splat(F16_MAX, lanes)
            x = bind(x)
            inside = bind(select(x > high, high, x))
            return tirx.Cast(vtype("float16", lanes), select(inside < low, low, inside))
        scaled = bind(x * splat(factor, lanes))
        whole = tirx.call_llvm_pure_intrin(vtype("float32", lanes), "llvm.rint", scaled)
        return tirx.Cast(vtype("int8", lanes), tirx.Cast(vtype("int32", lanes), whole))


def scale_of(buf: Buffer, at: Sequence[Index], size: int, lanes: int) -> tuple[Expr, Expr]:
    """Scale of the vector at ``buf[*at, ... + size]``, and the factor that turns its elements into codes."""
    *head, start = at
    best = scratch((lanes,))
    store(best, [0], splat(0.0, lanes))

    def widest(c: Expr, n: int) -> None:
        x = bind(load(buf, [*head, start + c], n))
        size_of = bind(fmax(x, splat(0.0, n) - x))
        store(best, [0], fmax(size_of, load(best, [0], n)))

    for_columns(size, lanes, widest)
    largest = max_lanes([bind(load(best, [j])) for j in range(lanes)])
    scale, factor = scratch((1,)), scratch((1,))
    store(scale, [0], splat(0.0, 1))
    store(factor, [0], splat(0.0, 1))
    with when(largest >= splat(SMALLEST, 1)):
        store(scale, [0], largest / splat(INT8_MAX, 1))
        store(factor, [0], splat(INT8_MAX, 1) / largest)
    return bind(load(scale, [0])), bind(load(factor, [0]))


@dataclass(frozen=True)
class WidePage(KvPages):
    """One page at a time, widened once for all rows of a tile. ``source`` has the scales."""

    source: KvPages
    lanes: int

    @staticmethod
    def allocate(source: KvPages, lanes: int) -> WidePage:
        """Allocate room for a key page and a value page in f32."""
        key, value, page = source.key_size, source.value_size, source.page
        return WidePage("f32", workspace((1, key, page)), workspace((1, page, value)), key, value, page, source, lanes)

    def fill_keys(self, page: Expr) -> None:
        """Widen the keys of ``page``."""
        with loop(self.key_size) as e:
            for_columns(self.page, self.lanes, lambda c, n: store(self.k, [0, e, c], self.source.keys(page, e, c, n)))

    def fill_values(self, page: Expr) -> None:
        """Widen the values of ``page``."""
        with loop(self.page) as s:
            for_columns(
                self.value_size, self.lanes, lambda c, n: store(self.v, [0, s, c], self.source.values(page, s, c, n))
            )

    def keys(self, page: Expr, e: Expr, slot: Expr, lanes: int) -> Expr:
        return load(self.k, [0, e, slot], lanes)

    def values(self, page: Expr, slot: Expr, col: Expr, lanes: int) -> Expr:
        return load(self.v, [0, slot, col], lanes)

    def key_scales(self, page: Expr, slot: Expr, lanes: int) -> Expr | None:
        return self.source.key_scales(page, slot, lanes)

    def value_scales(self, page: Expr, slot: Expr, lanes: int) -> Expr | None:
        return self.source.value_scales(page, slot, lanes)
