"""Model.batch on a program with a closed form: tokens, order, errors, limits, leaving early, other threads."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fretsaw.runtime import Batch, BatchOptions, Model, Request, RuntimeFailure, Sampling
from tests.runtime_py.conftest import CONTEXT, EOS, Tiny
from tests.runtime_py.tiny_program import expected_greedy

pytestmark = pytest.mark.native


@pytest.fixture
def model(binary: Path, tiny: Tiny) -> Iterator[Model]:
    del binary  # its fixture skips when nothing is built
    with Model(tiny.path, threads=2) as opened:
        yield opened


def some_requests(count: int, seed: int = 0) -> list[Request]:
    rng = random.Random(seed)
    return [
        Request([rng.randrange(250) for _ in range(rng.randrange(1, 30))], rng.randrange(1, 18), ignore_eos=True)
        for _ in range(count)
    ]


def expected(request: Request) -> list[int]:
    assert not isinstance(request.prompt, str)
    return expected_greedy(list(request.prompt), request.max_new_tokens)


@pytest.mark.parametrize("ordered", [True, False])
def test_every_request_gets_its_own_tokens(model: Model, ordered: bool) -> None:
    requests = some_requests(100)
    options = BatchOptions(max_batch_tokens=7, max_sequences=5)
    got = list(model.batch(iter(requests), options, ordered))
    indices = [r.index for r in got]
    assert sorted(indices) == list(range(100)) and (indices == list(range(100))) == ordered
    for result in got:
        request = requests[result.index]
        assert (result.tokens, result.finish, result.error) == (expected(request), "length", None)
        assert result.prompt_tokens == len(request.prompt)
        assert 0 <= result.queue_ms <= result.ttft_ms <= result.total_ms


def test_text_stops_draws_and_deadlines(model: Model) -> None:
    drawn = Request([3], 12, Sampling(temperature=50, seed=2), ignore_eos=True)
    requests: list[str | list[int] | Request] = [
        "!",
        Request([13], 8, stop=("zzz", "4h")),
        Request([EOS]),
        drawn,
        Request([1], timeout=0),
        [5],
    ]
    text, stopped, ended, draws, late, ids = model.batch(requests)
    assert text.tokens[:3] == [33, 66, 132] and text.text.startswith("!B")
    assert (stopped.text, stopped.finish) == ("\r\x1a", "stop_string")
    assert (ended.tokens, ended.finish) == ([EOS], "stop")
    assert draws.tokens == [t.id for t in model.generate([3], 12, drawn.sampling, ignore_eos=True) if t.id >= 0]
    assert (late.tokens, late.finish, late.ttft_ms) == ([], "deadline", 0)
    assert ids.tokens[:2] == [5, 10]


def test_what_cannot_be_done_is_told_and_the_rest_goes_on(model: Model) -> None:
    column = 6 * 8 * 9 * 4
    bad: list[list[int] | Request] = [
        [],
        [260],
        [1] * (CONTEXT + 1),
        Request([1], 0),
        Request([1] * 30, 9, ignore_eos=True),
    ]
    requests: list[list[int] | Request] = []
    for request in bad:
        requests += [request, Request([5], 2)]
    got = list(model.batch(requests, BatchOptions(kv_bytes=4 * column)))
    assert [r.tokens for r in got[1::2]] == [[5, 10]] * 5
    errors = [r.error for r in got[::2]]
    assert [(e.code, str(e)) for e in errors if e is not None] == [
        (9, "the prompt is empty; give at least one token of text"),
        (9, "token id 260 is outside the vocabulary of 260"),
        (10, "the prompt has 49 tokens, the context has room for 48; shorten the prompt or raise the context"),
        (2, "max-new-tokens: 0 is impossible; it must be at least 1"),
        (
            12,
            "prompt and max-new-tokens are 38 tokens, which need 8640 bytes of KV cache; it has 6912 bytes; "
            "shorten them or raise kv-memory",
        ),
    ]


def test_requests_are_taken_as_there_is_room(model: Model) -> None:
    pulled = 0

    def endless() -> Iterator[Request]:
        nonlocal pulled
        while True:
            pulled += 1
            yield Request([pulled % 200], 3, ignore_eos=True)

    results = model.batch(endless(), BatchOptions(max_sequences=2))
    for i in range(50):
        assert next(results).tokens == expected_greedy([(i + 1) % 200], 3)
        assert pulled <= i + 1 + 8
    assert isinstance(results, Iterator)
    results.close()  # type: ignore[attr-defined]  # leaves early: what is on its way is forgotten
    assert [r.tokens for r in model.batch([Request([5], 2)])] == [[5, 10]]


def test_cancelling_and_no_page_is_left(model: Model) -> None:
    rng = random.Random(7)
    with Batch(model, BatchOptions(max_sequences=4)) as batch:
        accepted, ended = 0, 0
        while accepted < 400:
            try:
                id = batch.submit(some_requests(1, accepted)[0])
            except RuntimeFailure as failure:
                assert (failure.status, str(failure)) == ("busy", "the queue is full: 8 requests wait; try again later")
                assert batch.step()
                continue
            accepted += 1
            if rng.random() < 0.3:
                batch.cancel(id)
        while batch.step():
            assert batch.stats()["used_pages"] <= 4 * 6 * 6
        finishes = set()
        while (taken := batch.take()) is not None:
            finishes.add(taken[1].finish)
            ended += 1
        assert (ended, finishes) == (400, {"length", "cancelled"})
        stats = batch.stats()
        assert (stats["used_pages"], stats["waiting"], stats["running"]) == (0, 0, 0)
        assert 0 < stats["peak_used_pages"] <= stats["pages"]


def test_other_threads_go_on_while_a_batch_steps(model: Model) -> None:
    """A step waits for the model while a generation calls back into Python: it must not hold the interpreter."""
    got: list[int] = []

    def slowly() -> None:
        for token in model.generate([7], 40, ignore_eos=True):
            got.append(token.id)
            time.sleep(0.001)

    thread = threading.Thread(target=slowly)
    thread.start()
    requests = some_requests(60, seed=2)
    results = list(model.batch(requests))
    thread.join()
    assert [i for i in got if i >= 0] == expected_greedy([7], 40)
    assert [r.tokens for r in results] == [expected(r) for r in requests]


def test_impossible_options(model: Model) -> None:
    with pytest.raises(RuntimeFailure, match="a context of 49 tokens is not between 1 and the model's 48"):
        Batch(model, BatchOptions(context=49))
    with pytest.raises(RuntimeFailure, match="max-sequences: -1 is impossible; it must be at least 1"):
        Batch(model, BatchOptions(max_sequences=-1))
    with pytest.raises(RuntimeFailure, match="kv-memory: 9 bytes hold no token; 1728 bytes hold the first 8"):
        Batch(model, BatchOptions(kv_bytes=9))
