"""fretsaw.runtime on a program with a closed form; and that the C header is plain C."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from fretsaw.runtime import Generation, Model, RuntimeFailure, Sampling
from tests.runtime_py.conftest import CONTEXT, EOS, Tiny
from tests.runtime_py.tiny_program import VOCAB, expected_greedy, expected_logits

pytestmark = pytest.mark.native


@pytest.fixture
def model(binary: Path, tiny: Tiny) -> Iterator[Model]:
    del binary  # its fixture skips when nothing is built
    with Model(tiny.path, threads=2) as opened:
        yield opened


def test_forward_gives_all_rows_over_chunks(model: Model) -> None:
    ids = [3, 200, 7, 259, 0, 11, 13, 17, 100, 100, 42, 5, 5, 5, 5, 90, 91, 92, 93]
    np.testing.assert_array_equal(model.forward(ids), expected_logits(ids))


def test_session_continues_and_resets(model: Model) -> None:
    ids = list(range(50, 50 + CONTEXT))
    want = expected_logits(ids)
    with model.session() as session:
        np.testing.assert_array_equal(session.forward(ids[:9]), want[:9])
        np.testing.assert_array_equal(session.forward(np.array(ids[9:30]), last_only=True), want[29:30])
        np.testing.assert_array_equal(session.forward(ids[30:]), want[30:])
        assert session.length == CONTEXT
        with pytest.raises(RuntimeFailure, match="49 tokens do not fit a context of 48") as failure:
            session.forward([1])
        assert (failure.value.code, failure.value.status) == (10, "prompt_too_long")
        session.reset()
        np.testing.assert_array_equal(session.forward(ids[:9]), want[:9])
        assert session.kv_bytes == 6 * 6 * 8 * 9 * 4


def test_two_sessions_do_not_disturb_each_other(model: Model) -> None:
    a, b = [1, 2, 3, 4], [9, 8, 7, 6]
    with model.session(8) as one, model.session(8) as two:
        for i in range(4):
            np.testing.assert_array_equal(one.forward(a[i : i + 1])[0], expected_logits(a)[i])
            np.testing.assert_array_equal(two.forward(b[i : i + 1])[0], expected_logits(b)[i])


def test_generate_streams_tokens(model: Model) -> None:
    result = Generation()
    tokens = list(model.generate([33], 3, result=result))
    assert [t.id for t in tokens if t.id >= 0] == [33, 66, 132] == result.tokens
    assert "".join(t.text for t in tokens) == result.text == "!B\N{REPLACEMENT CHARACTER}"
    assert (result.finish, result.decode_steps) == ("length", 2)


def test_leaving_the_loop_cancels(model: Model) -> None:
    result = Generation()
    with model.session() as session:
        for token in session.generate([1], 40, result=result):
            assert token.id == 1
            break
        assert session.length < 5  # it did not run on behind our back
    with model.session(8) as session:
        assert [t.id for t in session.generate([EOS], 40)] == [EOS]


def test_errors_of_generate_reach_the_caller(model: Model) -> None:
    with pytest.raises(RuntimeFailure, match="temperature: -1 is impossible"):
        list(model.generate([1], sampling=Sampling(temperature=-1)))
    with pytest.raises(RuntimeFailure, match="the prompt is empty"):
        list(model.generate(""))


def test_text(model: Model) -> None:
    assert model.encode("h\u00e9") == [104, 195, 169]
    assert model.decode([104, 195, 169, EOS]) == "h\u00e9"
    assert model.decode([104, EOS], skip_special_tokens=False) == "h</s>"
    assert model.apply_chat([{"role": "user", "content": "x"}]) == "[user]x>"
    assert (model.info["variant"], model.info["threads"], model.vocab_size) == ("llvm-x86-64", 2, VOCAB)


def test_greedy_over_a_long_text(model: Model) -> None:
    assert [t.id for t in model.generate([5, 6], 20, ignore_eos=True) if t.id >= 0] == expected_greedy([5, 6], 20)


def test_open_failures(binary: Path, tmp_path: Path) -> None:
    with pytest.raises(RuntimeFailure, match="No such file") as failure:
        Model(tmp_path / "none.fsaw")
    assert failure.value.status == "file_not_found"


def test_only_the_c_interface_is_exported(binary: Path) -> None:
    listing = subprocess.run(
        ["nm", "-D", "--defined-only", binary.with_name("libfretsaw.so")], capture_output=True, text=True, check=True
    )
    names = {line.split()[-1] for line in listing.stdout.splitlines()}
    assert names and all(name.startswith("fsw_") for name in names), names


def test_header_is_plain_c(root: Path, tmp_path: Path) -> None:
    source = tmp_path / "use.c"
    source.write_text('#include "fretsaw/fretsaw.h"\nint main(void) { fsw_model* m = 0; return m != 0; }\n')
    command = ["cc", "-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic", "-fsyntax-only"]
    subprocess.run([*command, f"-I{root / 'runtime/include'}", source], check=True)
