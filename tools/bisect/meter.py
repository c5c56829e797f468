"""How far a graph is from the one before all passes, in one number."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from fretsaw.ir import Graph, TensorType, run
from fretsaw.ir.errors import UsageError
from fretsaw.passes.evidence.divergence import diverge
from fretsaw.passes.evidence.feeds import Sequence, feed

Metric = Literal["kl", "nll", "top1"]
UNITS = {"kl": "nats per token", "nll": "nats per token", "top1": "of the tokens"}
LARGEST = 500_000_000  # parameters that the reference interpreter is asked to run


@dataclass
class Meter:
    """Measures graphs against ``reference`` on one text; a graph that was measured before costs nothing.

    Args:
        metric: ``kl``: mean divergence of the predictions, ``nll``: what the negative log-likelihood grows by, both in
            nats per token; ``top1``: share of tokens whose most likely successor stays the same.
        limit: A larger ``kl`` or ``nll``, or a smaller ``top1``, breaks it.
    """

    reference: Graph
    sequence: Sequence
    metric: Metric
    limit: float
    _last: tuple[Graph, float] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        sizes = [c.type.numel for c in self.reference.consts.values()]
        count = sum(n for n in sizes if isinstance(n, int))
        if count > LARGEST:
            raise UsageError(
                f"{count} parameters are too many for the reference interpreter, which bisect measures with",
                hint=f"at most {LARGEST}: take a smaller model of the same family",
            )
        out = self.reference.outputs[0]
        if out.name != "logits" or not isinstance(out.type, TensorType):
            raise UsageError(f"bisect compares predictions, this model has none: its output is %{out.name}")
        self._logits = self._run(self.reference)

    def value(self, graph: Graph) -> float:
        """The metric of ``graph``."""
        if self._last is None or self._last[0] is not graph:
            found = diverge(self._logits, self._run(graph), self.sequence.ids)
            numbers = {"kl": found.mean, "nll": found.nll_change, "top1": found.top1}
            self._last = (graph, numbers[self.metric])
        return self._last[1]

    def breaks(self, value: float) -> bool:
        """Whether the limit is broken. A number that is none breaks every limit."""
        return not (value >= self.limit if self.metric == "top1" else value <= self.limit)

    def said(self, value: float) -> str:
        return f"{self.metric} {value:.6g} {UNITS[self.metric]}"

    def _run(self, graph: Graph) -> np.ndarray:
        logits = run(graph, feed(graph, self.sequence))[0]
        return logits.reshape(-1, logits.shape[-1])  # [n, V]
