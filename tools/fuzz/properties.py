"""What has to hold for a well-typed graph, for a damaged graph, and for damaged text. Each raises ``Broken``."""

from __future__ import annotations

import random
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from fretsaw.ir import Graph, parse, to_text, verify
from fretsaw.ir.errors import FretsawError, ParseError, VerifyError
from fretsaw.tools.fuzz.generate import random_graph
from fretsaw.tools.fuzz.mutate_graph import damaged_graph
from fretsaw.tools.fuzz.mutate_text import damaged_text

LIMIT = 5.0  # seconds; a case that takes longer counts as a hang


class Broken(Exception):
    """A property does not hold. ``text`` is the IR text that shows it, where there is one."""

    def __init__(self, what: str, text: str = "") -> None:
        super().__init__(what)
        self.text = text


def check_graph(graph: Graph) -> str:
    """A well-typed graph verifies and comes back from its text as it was; returns the text."""
    try:
        verify(graph)
    except FretsawError as error:
        raise Broken(f"a well-typed graph is refused: {error.what}", to_text(graph)) from error
    text = to_text(graph)
    check_text_of(graph, text)
    return text


def check_text_of(graph: Graph, text: str) -> None:
    """``parse(to_text(g)) == g``, locations too, and the text is stable with and without the constants."""
    again = parse(text, {v.name: c for v, c in graph.consts.items()})
    if again != graph:
        raise Broken("parse(to_text(g)) differs from g", text)
    if to_text(again) != text or to_text(parse(text)) != text:
        raise Broken("to_text(parse(to_text(g))) differs from to_text(g)", text)


def check_damaged_graph(graph: Graph) -> bool:
    """A damaged graph prints; the verifier refuses it with VerifyError, or it is like any other. Returns which."""
    text = to_text(graph)
    if "\n" not in text or not all(line.isprintable() for line in text.split("\n")):
        raise Broken("the text has a character that is no text", text)
    try:
        verify(graph)
    except VerifyError as error:
        if not str(error).startswith("VerifyError: "):
            raise Broken(f"odd message: {error}", text) from error
        return False
    check_text_of(graph, text)
    return True


def check_text(text: str) -> bool:
    """Any text gives a graph or a ParseError; the graph prints, is judged, and its text is stable. Returns which."""
    try:
        graph = parse(text)
    except ParseError as error:
        if not str(error).startswith("ParseError: "):
            raise Broken(f"odd message: {error}", text) from error
        return False
    shown = to_text(graph)
    if to_text(parse(shown)) != shown:
        raise Broken("the text of a parsed graph is not stable", text)
    check_damaged_graph(graph)
    return True


def run_case(seed: int, mutations: int = 2) -> tuple[int, int, int]:
    """One graph and its mutations; returns (mutated graphs accepted, mutated texts read, mutations).

    Raises:
        Broken: a property does not hold, something else than our own errors came out, or it took over ``LIMIT``.
    """
    rng = random.Random(seed)
    accepted = read = 0
    text = ""
    try:
        with deadline(LIMIT):
            graph = random_graph(rng)
            text = to_text(graph)
            check_graph(graph)
            for _ in range(mutations):
                accepted += check_damaged_graph(damaged_graph(rng, graph))
            for _ in range(mutations):
                text = damaged_text(rng, to_text(graph))
                read += check_text(text)
    except Broken as error:
        raise error if error.text else Broken(str(error), text) from error
    except Exception as error:  # the property is that nothing else comes out
        raise Broken(f"{type(error).__name__}: {str(error)[:200]}", text) from error
    return accepted, read, 2 * mutations


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Raise ``Broken`` where the body takes longer (main thread, POSIX)."""

    def late(signum: int, frame: FrameType | None) -> None:
        raise Broken(f"no answer within {seconds} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
