"""What the rows of a KV cache hold of the tokens that their sequence has seen: the reference of ``kv.policy``.

Slots held and tokens seen are different numbers. What is held is a function of the tokens seen alone, and changes at
certain counts only; a step that would run past one is cut there, by the runtime and by the reference. So what a token
reads does not depend on the steps in which its sequence came (docs/runtime.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


class CachePolicy(Protocol):
    """Positions that a row holds, for any number of tokens seen."""

    def step_end(self, tokens: int) -> int:
        """The last token count at which a step that begins after ``tokens`` tokens may end; over ``tokens``."""
        ...

    def holds(self, positions: NDArray[np.integer], tokens: int) -> NDArray[np.bool_]:
        """Which of ``positions`` a row holds once ``tokens`` tokens have been seen."""
        ...

    def described(self) -> dict[str, object]:
        """The manifest's ``kv.policy``."""
        ...


@dataclass(frozen=True)
class WindowPolicy:
    """Pages with one of the first ``sinks`` tokens or of the last ``window`` ones.

    Args:
        page: Tokens of a page.
    """

    sinks: int
    window: int
    page: int

    @property
    def head(self) -> int:
        """Tokens of the pages that are held for good."""
        return -(-self.sinks // self.page) * self.page

    def _tail(self, tokens: int) -> int:
        """The first token behind the head that is held."""
        return max(self.head, (tokens - self.window) // self.page * self.page)

    def bound(self, tokens: int) -> int:
        """Most slots of a row while its sequence sees ``tokens`` tokens, a step's own included."""
        return min(tokens, self.head + self.window + self.page)

    def step_end(self, tokens: int) -> int:
        return self._tail(tokens) + self.window + self.page

    def holds(self, positions: NDArray[np.integer], tokens: int) -> NDArray[np.bool_]:
        return (positions < tokens) & ((positions < self.head) | (positions >= self._tail(tokens)))

    def described(self) -> dict[str, object]:
        return {"name": "window", "sinks": self.sinks, "window": self.window}
