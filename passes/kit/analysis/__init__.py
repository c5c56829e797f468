"""What passes ask about a whole graph: who reads what, what dominates, what is alive, what can be cut out."""

from fretsaw.passes.kit.analysis.dominance import Dominance, dominance
from fretsaw.passes.kit.analysis.liveness import Liveness, liveness
from fretsaw.passes.kit.analysis.once import analysis
from fretsaw.passes.kit.analysis.regions import Regions, regions
from fretsaw.passes.kit.analysis.uses import Read, Uses, uses

__all__ = [
    "Dominance", "Liveness", "Read", "Regions", "Uses", "analysis", "dominance", "liveness", "regions", "uses",
]  # fmt: skip
