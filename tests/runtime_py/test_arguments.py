"""The binding changes nothing that it is given: what C would misread is refused by the argument's name."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fretsaw.runtime import Batch, BatchOptions, Model, Request, Sampling
from tests.runtime_py.conftest import Tiny

pytestmark = pytest.mark.native


@pytest.fixture
def model(binary: Path, tiny: Tiny) -> Iterator[Model]:
    del binary  # its fixture skips when nothing is built
    with Model(tiny.path, threads=1) as opened:
        yield opened


def submit(model: Model, request: Any) -> None:
    with Batch(model) as batch:
        batch.submit(request)


# Any: that mypy would refuse most of these is the point.
BAD: list[tuple[Callable[[Any], object], type[Exception], str]] = [
    (lambda m: m.encode(b"x"), TypeError, "text: expected a str, got bytes"),
    (lambda m: m.encode("a\ud800"), ValueError, "text: the character at 1 is half of a surrogate pair (U+D800)"),
    (lambda m: m.encode("a", 1), TypeError, "add_special_tokens: expected True or False, got int"),
    (lambda m: m.decode([2**32 + 5]), ValueError, "ids[0]: expected an int between -2147483648 and 2147483647"),
    (lambda m: m.decode([1, 2.0]), TypeError, "ids[1]: expected an int, got float"),
    (lambda m: m.decode("12"), TypeError, "ids: expected a list of token ids, got str"),
    (
        lambda m: m.apply_chat([{"role": "user", "content": "keep\0 SECRET RULES"}]),
        ValueError,
        "messages[0]['content']: has a NUL character at 4, where C would end it",
    ),
    (lambda m: m.apply_chat([{"role": "user"}]), ValueError, "messages[0]: has no 'content'"),
    (lambda m: m.apply_chat(["hi"]), TypeError, "messages[0]: expected a mapping, got str"),
    (lambda m: list(m.generate([1], stop=["l\0zz"])), ValueError, "stop[0]: has a NUL character at 1"),
    (lambda m: list(m.generate([1], stop="abc")), TypeError, "stop: expected a list of str, got str; for one"),
    (lambda m: list(m.generate([2**32 + 5])), ValueError, "prompt[0]: expected an int between"),
    (lambda m: list(m.generate([True])), TypeError, "prompt[0]: expected an int, got bool"),
    (lambda m: list(m.generate([1], 2**64 + 3)), ValueError, "max_new_tokens: expected an int between"),
    (lambda m: list(m.generate([1], 2.0)), TypeError, "max_new_tokens: expected an int, got float"),
    (lambda m: list(m.generate([1], sampling=Sampling(seed=2**64 + 1))), ValueError, "seed: expected an int between 0"),
    (lambda m: list(m.generate([1], sampling=Sampling(seed=-1))), ValueError, "seed: expected an int between 0"),
    (
        lambda m: list(m.generate([1], sampling=Sampling(temperature=float("nan")))),
        ValueError,
        "temperature: expected a finite number, got nan",
    ),
    (lambda m: m.forward(np.array([2**32 + 5, 1])), ValueError, "ids[0]: token ids have 32 bits, got 4294967301"),
    (lambda m: m.forward(np.array([[5, 6], [7, 8]])), TypeError, "ids: expected a list of token ids, got an array of"),
    (
        lambda m: m.forward(np.array([5.9, 6.2])),
        TypeError,
        "ids: expected a list of token ids, got an array of f",
    ),
    (lambda m: m.forward([5.9, 6.2]), TypeError, "ids[0]: expected an int, got float"),
    (lambda m: m.forward(["5"]), TypeError, "ids[0]: expected an int, got str"),
    (lambda m: m.forward([[5, 6]]), TypeError, "ids[0]: expected an int, got list"),
    (lambda m: m.session(2**64), ValueError, "context: expected an int between"),
    (lambda m: m.session(True), TypeError, "context: expected an int, got bool"),
    (lambda m: submit(m, Request([1], timeout=float("nan"))), ValueError, "timeout: expected a finite number, got nan"),
    (lambda m: submit(m, Request([2**32 + 5])), ValueError, "prompt[0]: expected an int between"),
    (lambda m: Batch(m, BatchOptions(kv_bytes=-1)), ValueError, "kv_bytes: expected an int between 0"),
    (lambda m: Batch(m, BatchOptions(context=2**64 + 8)), ValueError, "context: expected an int between"),
    (lambda m: m.embed([[2**32 + 5]]), ValueError, "texts[0][0]: expected an int between"),
    (lambda m: m.embed(["\ud800"]), ValueError, "texts[0]: the character at 0 is half of a surrogate pair"),
    (lambda m: Model("x.fsaw\0.png"), ValueError, "path: has a NUL character at 6"),
    (lambda m: Model("x.fsaw", threads=2**32 + 1), ValueError, "threads: expected an int between"),
    (lambda m: Model("x.fsaw", variant="a\0b"), ValueError, "variant: has a NUL character at 1"),
]


@pytest.mark.parametrize(("call", "kind", "words"), BAD, ids=[words[:40] for _, _, words in BAD])
def test_refused_by_name(model: Model, call: Callable[[Any], object], kind: type[Exception], words: str) -> None:
    with pytest.raises(kind, match=re.escape(words)):
        call(model)


def test_what_is_right_goes_through(model: Any) -> None:
    assert model.decode(np.array([104, 105], dtype=np.uint16)) == "hi"
    assert model.forward(np.arange(20, dtype=np.int64)[::2]).shape[0] == 10
    assert model.decode([np.int64(104)]) == "h"
    assert model.encode("a\0b") == [97, 0, 98]
    assert [t.id for t in model.generate((5,), 2, Sampling(temperature=0, seed=2**64 - 1))][:2] == [5, 10]


def test_one_bad_item_is_its_own_error(model: Model) -> None:
    items: list[Any] = [[5], "\ud800 hi", [2**40], [1.5], None, Request([5], stop="abc"), [5]]
    got = list(model.batch([i if isinstance(i, Request | str) or i != [5] else Request(i, 2) for i in items]))
    assert [r.tokens for r in got] == [[5, 10], [], [], [], [], [], [5, 10]]
    assert [str(r.error).split(":")[0] for r in got[1:-1]] == ["text", "prompt[0]", "prompt[0]", "prompt", "stop"]
    assert {r.error.status for r in got[1:-1] if r.error is not None} == {"bad_input"}
