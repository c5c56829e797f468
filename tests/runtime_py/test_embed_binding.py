"""Model.embed: the same bits as fretsaw-run, ids and texts, errors, other threads go on meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fretsaw.runtime import Model, RuntimeFailure
from tests.passes.test_pack_encoders import LONGEST
from tests.runtime_py.conftest import Tiny
from tests.runtime_py.encoders import TEXTS, Small, compile_small
from tests.runtime_py.test_embed import distance, embed

pytestmark = pytest.mark.native
FITTING = [t for i, t in enumerate(TEXTS) if i != 4]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    return compile_small("bert", "mean", tmp_path_factory.mktemp("bert"))


@pytest.fixture(scope="module")
def model(binary: Path, small: Small) -> Iterator[Model]:
    del binary  # its fixture skips when nothing is built
    with Model(small.artifact, threads=2) as opened:
        yield opened


def test_texts_give_the_bits_of_the_command(model: Model, binary: Path, small: Small, tmp_path: Path) -> None:
    got = model.embed(FITTING)
    assert got.flags.c_contiguous and distance(got, small.want(FITTING)) < 1e-5
    np.testing.assert_array_equal(got, embed(binary, small.artifact, FITTING, tmp_path / "v.npy"))
    np.testing.assert_array_equal(model.embed(small.ids(FITTING)), got)
    np.testing.assert_array_equal(model.embed([np.array(i, np.uint16) for i in small.ids(FITTING)]), got)
    for i in (0, 3):
        np.testing.assert_array_equal(model.embed([FITTING[i]])[0], got[i])


def test_long_texts_are_cut_with_a_warning(model: Model, small: Small) -> None:
    with pytest.warns(UserWarning, match=r"^1 of 8 texts were cut to the model's context$"):
        got = model.embed(TEXTS)
    np.testing.assert_array_equal(got, model.embed(small.ids(TEXTS)))  # cut as Hugging Face cuts


def test_nothing_and_texts_without_tokens(model: Model) -> None:
    assert model.embed([]).shape == (0, 48)
    np.testing.assert_array_equal(model.embed([[], []]), np.zeros((2, 48), np.float32))


def test_errors(model: Model, binary: Path, tiny: Tiny) -> None:
    def failing(texts: list[list[int]], status: str, words: str) -> None:
        with pytest.raises(RuntimeFailure) as failure:
            model.embed(texts)
        assert (failure.value.status, str(failure.value)) == (status, words)

    failing([[1], [320]], "bad_input", "token id 320 is outside the vocabulary of 320")
    failing([[5] * (LONGEST + 1)], "prompt_too_long", "a text of 129 tokens is over the model's 128")
    with pytest.raises(TypeError, match=r"for one text give \[text\]"):
        model.embed("abc")
    with pytest.raises(TypeError, match="all str or all lists of token ids"):
        model.embed(["abc", [1]])
    with pytest.raises(TypeError, match=r"texts\[1\]\[0\]: expected an int, got float"):
        model.embed([[1], [0.5]])  # type: ignore[list-item]
    with pytest.raises(RuntimeFailure, match="only decoders generate text; the artifact holds .* 'encoder'"):
        model.session()
    with pytest.raises(RuntimeFailure, match="only decoders generate text; the artifact holds .* 'encoder'"):
        list(model.generate([1], 2))
    with pytest.raises(RuntimeFailure, match="only decoders generate text; the artifact holds .* 'encoder'"):
        list(model.batch([[1]]))
    with Model(tiny.path) as decoder, pytest.raises(RuntimeFailure) as failure:
        decoder.embed([[1]])
    words = "only encoders embed texts; the artifact holds a model of kind 'decoder'"
    assert failure.value.status == "unsupported" and str(failure.value).startswith(words)


def test_other_threads_go_on(model: Model) -> None:
    """A Python thread counts while one call runs; with the GIL held it would count nothing in between."""
    texts = [list(range(4, 4 + LONGEST))] * 400
    model.embed(texts[:8])
    counted, stop = 0, threading.Event()

    def count() -> None:
        nonlocal counted
        while not stop.is_set():
            counted += 1
            time.sleep(0)

    other = threading.Thread(target=count)
    other.start()
    before = counted
    model.embed(texts)
    during = counted - before
    stop.set()
    other.join()
    assert during > 100
