"""Progress of long work where no bar is drawn: a line a stage, and one now and then within a long stage.

search plan, 0 s: passes of the dense model
search plan, 6 s: survey of 11 candidates on 4096 tokens
search plan, 37 s: candidates in layer 4
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

Note = Callable[[str], None]
EVERY = 30.0  # seconds without a line after which the next note is one


@dataclass
class Lines:
    """Notes go to a bar, and to lines where ``shown``.

    Args:
        what: Stands before every line.
        bar: Told every note; shows it on a terminal.
        write: Writes a line.
        shown: There is no terminal, and nobody asked for quiet.
        clock: Seconds.
    """

    what: str
    bar: Note
    write: Note
    shown: bool
    clock: Callable[[], float] = time.perf_counter
    began: float = field(init=False)
    last: float = field(init=False)

    def __post_init__(self) -> None:
        self.began = self.last = self.clock()

    def stage(self, text: str) -> None:
        """Something begins or was found: a line."""
        self.bar(text)
        if self.shown:
            self.last = self.clock()
            self.write(f"{self.what}, {self.last - self.began:.0f} s: {text}")

    def note(self, text: str) -> None:
        """Something goes on: a line if there was none for long."""
        if self.shown and self.clock() - self.last >= EVERY:
            self.stage(text)
        else:
            self.bar(text)
