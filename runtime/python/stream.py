"""Turning a function that calls back into an iterator."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import TypeVar

T = TypeVar("T")


def iterate(produce: Callable[[Callable[[T], bool]], None]) -> Iterator[T]:
    """Yield what ``produce`` hands to its argument, from a thread of its own.

    ``produce(put)`` runs in a thread; ``put(item)`` returns False once the consumer has left, and ``produce``
    should then end. The queue holds one item, so that a slow consumer holds production back. An exception of
    ``produce`` is raised here, after the items before it.
    """
    items: queue.Queue[tuple[T] | None] = queue.Queue(maxsize=1)
    left = threading.Event()
    failure: list[BaseException] = []

    def put(item: T) -> bool:
        if not left.is_set():
            items.put((item,))
        return not left.is_set()

    def work() -> None:
        try:
            produce(put)
        except BaseException as error:  # handed to the consumer, whatever it is
            failure.append(error)
        finally:
            items.put(None)

    thread = threading.Thread(target=work, name="fretsaw-generate", daemon=True)
    thread.start()
    try:
        while (item := items.get()) is not None:
            yield item[0]
    finally:
        left.set()
        while thread.is_alive():  # a producer that waits for room must be let go
            try:
                items.get(timeout=0.01)
            except queue.Empty:
                continue
        thread.join()
    if failure:
        raise failure[0]
