"""Handles from many threads, closed while they are used, and in a forked process."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fretsaw.runtime import Batch, Model, Request, RuntimeFailure
from tests.runtime_py.conftest import Tiny
from tests.runtime_py.tiny_program import expected_greedy

pytestmark = pytest.mark.native

CLOSED = "the model was closed; use it before its close\\(\\) or inside its with"


@pytest.fixture
def model(binary: Path, tiny: Tiny) -> Iterator[Model]:
    del binary  # its fixture skips when nothing is built
    with Model(tiny.path, threads=1) as opened:
        yield opened


def in_threads(count: int, work: Callable[[int], None]) -> None:
    """Run ``work`` in so many threads; the first failure is raised here."""
    failures: list[BaseException] = []

    def guarded(i: int) -> None:
        try:
            work(i)
        except BaseException as failure:  # shown by the caller
            failures.append(failure)

    threads = [threading.Thread(target=guarded, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def run_python(tiny: Tiny, body: str, timeout: float = 60) -> subprocess.CompletedProcess[str]:
    """``body`` in a process of its own, which may crash or hang, with a model ``m``."""
    head = f"from fretsaw.runtime import *\nm = Model({str(tiny.path)!r}, threads=1)\n"
    return subprocess.run([sys.executable, "-c", head + body], capture_output=True, text=True, timeout=timeout)


def test_text_calls_from_many_threads(model: Model) -> None:
    texts = ["alpha beta " * n for n in (1, 50, 7, 400)]

    def work(i: int) -> None:
        for n in range(300):
            text = texts[(i + n) % len(texts)]
            ids = list(text.encode())
            assert model.encode(text) == ids
            assert model.decode(ids) == text
            assert model.apply_chat([{"role": "user", "content": text}]) == f"[user]{text}>"

    in_threads(8, work)


def test_results_of_a_batch_taken_from_many_threads(model: Model) -> None:
    taken: list[list[int]] = []
    with Batch(model) as batch:
        for _ in range(120):
            batch.submit(Request("!", 12, ignore_eos=True))
        while batch.step():
            pass

        def work(_: int) -> None:
            while (got := batch.take()) is not None:
                taken.append(got[1].tokens)

        in_threads(8, work)
    assert taken == [expected_greedy([33], 12)] * 120


def test_a_loop_may_use_the_model_it_iterates(model: Model) -> None:
    want = expected_greedy([5], 12)
    got, other = [], []
    for a, b in zip(model.generate([5], 12), model.generate([5], 12), strict=True):
        got.append(a.id)
        other.append(b.id)
        model.decode([a.id])
        model.encode("x")
        assert model.forward([1, 2]).shape[0] == 2
    assert [i for i in got if i >= 0] == [i for i in other if i >= 0] == want


def test_a_session_takes_one_call_at_a_time(model: Model) -> None:
    with model.session() as session:
        tokens = session.generate([5], 12)
        next(tokens)
        for call in (session.reset, lambda: session.forward([1])):
            with pytest.raises(RuntimeFailure, match="the session is in use by another call") as failure:
                call()
            assert failure.value.status == "busy"
        tokens.close()  # type: ignore[attr-defined]  # a generator
        session.reset()


@pytest.mark.parametrize(
    "body",
    [
        "g = m.generate([5], 12); first = next(g); m.close(); print(first.id, *(t.id for t in g if t.id >= 0))",
        "s = m.session(); m.close(); print(*(t.id for t in s.generate([5], 12) if t.id >= 0)); s.close()",
        "b = Batch(m); b.submit(Request([5], 12)); m.close()\n"
        "while b.step(): pass\nprint(*b.take()[1].tokens); b.close()",
        "it = m.batch([Request([5], 12), Request([5], 12)]); r = next(it); m.close(); next(it); print(*r.tokens)",
        "s = m.session(); g = s.generate([5], 12); f = next(g); s.close(); m.close()\n"
        "print(f.id, *(t.id for t in g if t.id >= 0))",
    ],
)
def test_what_uses_a_closed_model_goes_on(binary: Path, tiny: Tiny, body: str) -> None:
    done = run_python(tiny, body)
    assert (done.returncode, done.stdout.split()) == (0, [str(i) for i in expected_greedy([5], 12)]), done.stderr


def test_a_closed_handle_says_so(binary: Path, tiny: Tiny) -> None:
    with Model(tiny.path) as model:
        session, batch = model.session(), Batch(model)
        tokens, results = model.generate([5], 12), model.batch([Request([5], 12)])
    uses: list[Callable[[], object]] = [
        lambda: model.encode("x"),
        lambda: model.decode([1]),
        lambda: model.apply_chat([]),
        lambda: model.forward([1]),
        model.session,
        lambda: Batch(model),
        lambda: next(tokens),
        lambda: next(results),
        lambda: model.embed(["x"]),
    ]
    for use in uses:
        with pytest.raises(RuntimeFailure, match=CLOSED):
            use()
    session.close()
    batch.close()
    model.close()
    with pytest.raises(RuntimeFailure, match="the session was closed"):
        session.forward([1])
    with pytest.raises(RuntimeFailure, match="the batch was closed"):
        batch.step()


def test_closing_while_other_threads_call(binary: Path, tiny: Tiny) -> None:
    for _ in range(5):
        model = Model(tiny.path, threads=1)
        started = threading.Barrier(5)

        def work(i: int, model: Model = model, started: threading.Barrier = started) -> None:
            started.wait()
            if i == 4:
                model.close()
                return
            with pytest.raises(RuntimeFailure, match=CLOSED):
                while True:
                    assert model.encode("alpha") == list(b"alpha")
                    model.forward([1, 2, 3])

        in_threads(5, work)


@pytest.mark.parametrize(
    "alive",
    ["b = Batch(m); b.submit(Request([5], 12)); b.step()", "s = m.session()", "g = m.generate([5], 12); next(g)"],
)
def test_an_interpreter_ends_with_everything_alive(binary: Path, tiny: Tiny, alive: str) -> None:
    done = run_python(tiny, alive)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_forked_process_gets_an_error(binary: Path, tiny: Tiny) -> None:
    body = """
import os
s, b = m.session(), Batch(m)
if pid := os.fork():
    raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
assert m.encode("ok") == [111, 107]
for call in (lambda: m.forward([1]), lambda: s.forward([1]), lambda: list(m.generate([1])), b.step, b.take):
    try:
        call()
        raise SystemExit(5)
    except RuntimeFailure as failure:
        assert "forked" in str(failure) and failure.status == "usage", failure
b.close(), s.close(), m.close()
"""
    done = run_python(tiny, body)
    assert done.returncode == 0, done.stderr
