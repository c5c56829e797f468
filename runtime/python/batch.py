"""Many requests at once on one model: what :meth:`fretsaw.runtime.Model.batch` gives."""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator, Sequence
from ctypes import POINTER, byref, c_char_p, c_double, c_int32, c_int64, c_size_t, c_uint64, c_void_p
from dataclasses import dataclass, field, replace
from typing import Protocol

from fretsaw.runtime.arguments import UINT64, ids, integer, real
from fretsaw.runtime.closing import Closing
from fretsaw.runtime.errors import RuntimeFailure
from fretsaw.runtime.handle import Handle
from fretsaw.runtime.library import check, load
from fretsaw.runtime.sampling import Sampling, native_options

_FINISH = ("stop", "length", "stop_string", "cancelled", "deadline")


class _Options(ctypes.Structure):
    """``fsw_batch_options``."""

    _fields_ = (
        ("struct_bytes", c_size_t),
        ("context", c_int64),
        ("max_batch_tokens", c_int64),
        ("max_sequences", c_int64),
        ("max_queue", c_int64),
        ("kv_bytes", c_uint64),
    )


class _Result(ctypes.Structure):
    """``fsw_batch_result``."""

    _fields_ = (
        ("struct_bytes", c_size_t),
        ("id", c_int64),
        ("status", c_int32),
        ("error", c_char_p),
        ("tokens", POINTER(c_int32)),
        ("token_count", c_size_t),
        ("text", c_void_p),
        ("text_bytes", c_size_t),
        ("finish", c_int32),
        ("prompt_tokens", c_int64),
        ("queue_ms", c_double),
        ("ttft_ms", c_double),
        ("total_ms", c_double),
    )


_STATS = ("waiting", "running", "steps", "prompt_tokens", "shared_tokens", "new_tokens")
_PAGES = ("pages", "used_pages", "peak_used_pages")


class _Stats(ctypes.Structure):
    """``fsw_batch_stats``."""

    _fields_ = (
        ("struct_bytes", c_size_t),
        *((name, c_int64) for name in (*_STATS, *_PAGES)),
        ("page_bytes", c_uint64),
    )


@dataclass(frozen=True)
class Request:
    """One request: a prompt as text or token ids, and how to go on from it. ``timeout`` in seconds."""

    prompt: str | Sequence[int]
    max_new_tokens: int = 128
    sampling: Sampling | None = None
    stop: Sequence[str] = ()
    ignore_eos: bool = False
    timeout: float | None = None


@dataclass(frozen=True)
class Completed:
    """A request that has ended.

    ``index`` counts the requests from 0. With ``error`` there are no tokens; else ``finish`` is stop, length,
    stop_string, cancelled or deadline. Times are milliseconds from when the request was submitted; ``ttft_ms`` is 0
    without a token.
    """

    index: int
    tokens: list[int] = field(default_factory=list)
    text: str = ""
    finish: str = ""
    prompt_tokens: int = 0
    queue_ms: float = 0.0
    ttft_ms: float = 0.0
    total_ms: float = 0.0
    error: RuntimeFailure | None = None


@dataclass(frozen=True)
class BatchOptions:
    """Limits of a batch; 0 stands for the default.

    ``max_batch_tokens`` of one step (default: what the program takes), ``max_sequences`` at once (64), ``kv_bytes`` of
    all KV pages (1 GiB, or one context if that is more), ``context`` tokens of one sequence (the model's).
    """

    max_batch_tokens: int = 0
    max_sequences: int = 0
    kv_bytes: int = 0
    context: int = 0

    @property
    def in_flight(self) -> int:
        """Requests that are submitted before one must end."""
        return 2 * (self.max_sequences or 64)


class Owner(Protocol):
    """What a batch needs of a model."""

    _handle: Handle

    def encode(self, text: str) -> list[int]:
        """Token ids of a prompt."""
        ...


class Batch(Closing):
    """``fsw_batch``. Submit and cancel may be called from any thread, the rest from one at a time."""

    def __init__(self, model: Owner, options: BatchOptions | None = None) -> None:
        self._model = model
        self._library = load()
        o = options or BatchOptions()
        counts = {name: integer(name, getattr(o, name)) for name in ("context", "max_batch_tokens", "max_sequences")}
        in_flight = integer("max_sequences", o.in_flight)
        kv_bytes = integer("kv_bytes", o.kv_bytes, UINT64)
        native = _Options(ctypes.sizeof(_Options), *counts.values(), in_flight, kv_bytes)
        made = c_void_p()
        with model._handle as pointer:
            check(self._library.fsw_batch_create(pointer, byref(native), byref(made)))
        self._handle = Handle("the batch", made, self._library.fsw_batch_close)

    def submit(self, request: Request) -> int:
        """Queue a request; its id.

        Raises:
            RuntimeFailure: it could never run, or the queue is full.
            TypeError, ValueError: by the argument's name, what is not of its kind or range.
        """
        prompt = self._model.encode(request.prompt) if isinstance(request.prompt, str) else request.prompt
        tokens = ids("prompt", prompt)
        options = native_options(request.max_new_tokens, request.sampling, request.stop, request.ignore_eos)
        timeout_ms = -1.0 if request.timeout is None else 1000.0 * max(0.0, real("timeout", request.timeout))
        at = tokens.ctypes.data_as(POINTER(c_int32))
        id = c_int64()
        with self._handle as pointer:
            check(self._library.fsw_batch_submit(pointer, at, tokens.size, byref(options), timeout_ms, byref(id)))
        return id.value

    def cancel(self, id: int) -> None:
        """End a request with what it has, at the next step."""
        number = integer("id", id)
        with self._handle as pointer:
            check(self._library.fsw_batch_cancel(pointer, number))

    def step(self) -> bool:
        """Run one step of everything that is submitted; False when there was nothing to do."""
        worked = c_int32()
        with self._handle as pointer:
            check(self._library.fsw_batch_step(pointer, byref(worked)))
        return bool(worked.value)

    def take(self) -> tuple[int, Completed] | None:
        """One that has ended, with its id, in order of ending; ``index`` is not set."""
        r = _Result(ctypes.sizeof(_Result))
        with self._handle as pointer:
            check(self._library.fsw_batch_next(pointer, byref(r)))
        if r.id == 0:
            return None
        if r.status:
            name = self._library.fsw_status_name(r.status).decode()
            return r.id, Completed(-1, error=RuntimeFailure(r.status, name, r.error.decode(errors="replace")))
        text = ctypes.string_at(r.text, r.text_bytes).decode(errors="replace") if r.text_bytes else ""
        times = r.queue_ms, r.ttft_ms, r.total_ms
        return r.id, Completed(-1, r.tokens[: r.token_count], text, _FINISH[r.finish], r.prompt_tokens, *times)

    def stats(self) -> dict[str, int]:
        """Counts of requests, steps, tokens and KV pages."""
        s = _Stats(ctypes.sizeof(_Stats))
        with self._handle as pointer:
            check(self._library.fsw_batch_get_stats(pointer, byref(s)))
        return {name: int(getattr(s, name)) for name in (*_STATS, *_PAGES, "page_bytes")}

    def close(self) -> None:
        """Forget what has not ended and free the KV cache."""
        self._handle.close()


def run(
    model: Owner, requests: Iterable[Request | str | Sequence[int]], options: BatchOptions, ordered: bool
) -> Iterator[Completed]:
    """Yield every request's result, in the order of the requests or as they end. Leaving the loop early cancels."""
    coming = enumerate(requests)
    more, turn = True, 0
    indices: dict[int, int] = {}  # of the ids that have not ended
    ready: dict[int, Completed] = {}
    with Batch(model, options) as batch:
        while more or indices or ready:
            while more and len(indices) < options.in_flight:
                item = next(coming, None)
                more = item is not None
                if item is None:
                    break
                index, asked = item
                try:
                    request = asked if isinstance(asked, Request) else Request(asked)
                    indices[batch.submit(request)] = index
                except RuntimeFailure as error:
                    ready[index] = Completed(index, error=error)
                except (TypeError, ValueError) as error:
                    ready[index] = Completed(index, error=RuntimeFailure(9, "bad_input", str(error)))
            if indices:
                batch.step()
            while (taken := batch.take()) is not None:
                index = indices.pop(taken[0])
                ready[index] = replace(taken[1], index=index)
            for index in [turn] if ordered else list(ready):
                while index in ready:
                    yield ready.pop(index)
                    turn += 1
                    index = turn if ordered else -1
