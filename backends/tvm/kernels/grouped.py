"""Reading weights in integer codes (program/codes.py): a group's scales and minima, words of codes, f32 weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm import tirx
from tvm.script.ir_builder import tirx as T

from fretsaw.backends.program.codes import WORD, Grouped
from fretsaw.backends.program.pack import PANEL
from fretsaw.backends.tvm.kernels.emit import Buffer, Expr, bind, fma, load, loop, splat_int, vtype


@dataclass(frozen=True)
class GroupReader:
    """Emits the loads of one group: codes, scales and minima of ``lanes`` columns of a panel.

    Args:
        buffer: The packed weights.
        lead: Indices in front of the panel, such as the expert.
    """

    how: Grouped
    buffer: Buffer
    lanes: int
    lead: tuple[Expr, ...] = ()

    def terms(self, panel: Expr, group: Expr, column: int) -> tuple[Expr, Expr]:
        """f32 vectors of scales and minima, to be used for the whole group."""
        begin = self.how.words * PANEL + column // 2
        return self._halves(panel, group, begin), self._halves(panel, group, begin + PANEL // 2)

    def _halves(self, panel: Expr, group: Expr, at: int) -> Expr:
        pairs = load(self.buffer, [*self.lead, panel, group, at], self.lanes // 2)
        return bind(tirx.Cast(vtype("float32", self.lanes), T.reinterpret(vtype("float16", self.lanes), pairs)))

    def codes(self, panel: Expr, group: Expr, step: Expr, column: int | Expr) -> tuple[Expr, ...]:
        """Words of neighbouring columns that hold the ``how.step`` codes of a step, one vector for each plane; the
        codes of the step are in their lowest bits."""
        out, at = [], 0
        for bits in self.how.planes:
            steps = WORD // bits // self.how.step  # steps that one word serves
            word = load(self.buffer, [*self.lead, panel, group, (at + step // steps) * PANEL + column], self.lanes)
            if steps > 1:
                down = bind(tirx.Cast("int32", step % steps * (self.how.step * bits)))
                word = word >> (down if self.lanes == 1 else T.broadcast(down, self.lanes))
            out.append(T.bind(word))
            at += self.how.group * bits // WORD
        return tuple(out)

    def weights(self, words: tuple[Expr, ...], which: int, terms: tuple[Expr, Expr]) -> Expr:
        """f32 weights of code ``which`` of a step."""
        code, low = None, 0
        for bits, word in zip(self.how.planes, words, strict=True):
            shifted = word >> splat_int(which * bits, self.lanes) if which else word
            part = shifted & splat_int(2**bits - 1, self.lanes)
            code = part if code is None else code | (part << splat_int(low, self.lanes))
            low += bits
        return fma(tirx.Cast(vtype("float32", self.lanes), code), *terms)

    def column(self, panel: Expr, lane: Expr, depth: int, put: Callable[[Expr, Expr], None]) -> None:
        """Decode one column from end to end, for a reader of one lane: ``put(k, weight)`` for each k."""
        how = self.how
        with loop(depth // how.group) as g:
            terms = tuple(bind(self._half(panel, g, at, lane)) for at in (0, PANEL // 2))
            with loop(how.group // how.step) as step:
                words = self.codes(panel, g, step, lane)
                for which in range(how.step):
                    weight = bind(self.weights(words, which, (terms[0], terms[1])))
                    put(g * how.group + step * how.step + which, weight)

    def _half(self, panel: Expr, group: Expr, at: int, lane: Expr) -> Expr:
        pair = load(self.buffer, [*self.lead, panel, group, self.how.words * PANEL + at + lane // 2])
        word = T.reinterpret("uint32", pair) >> tirx.Cast("uint32", lane % 2 * 16)
        return tirx.Cast("float32", T.reinterpret("float16", tirx.Cast("uint16", word)))
