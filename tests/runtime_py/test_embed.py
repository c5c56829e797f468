"""fretsaw-run --embed: vectors against transformers, the same bits in any batch, a file that is whole or not there."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.passes.test_pack_encoders import LONGEST
from tests.runtime_py.conftest import Tiny
from tests.runtime_py.encoders import TEXTS, Small, compile_small

pytestmark = pytest.mark.native


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    """BERT, mean pooling."""
    return compile_small("bert", "mean", tmp_path_factory.mktemp("bert"))


def run(
    binary: Path, artifact: Path, *args: str | Path, stdin: bytes | None = None
) -> subprocess.CompletedProcess[bytes]:
    command = [binary, artifact, *args]
    return subprocess.run(command, input=stdin, capture_output=True, timeout=60, check=False, restore_signals=False)


def embed(binary: Path, artifact: Path, texts: Sequence[str], out: Path, *more: str) -> np.ndarray:
    """The vectors that the command writes for these texts."""
    lines = "".join(t + "\n" for t in texts).encode()
    done = run(binary, artifact, "--embed", "-", "--out", out, *more, stdin=lines)
    assert done.returncode == 0, done.stderr.decode()
    vectors: np.ndarray = np.load(out)
    return vectors


def distance(got: np.ndarray, want: np.ndarray) -> float:
    """Largest cosine distance; ``want`` has length one."""
    assert got.dtype == np.float32 and got.shape == want.shape
    return float((1 - (got * want).sum(1) / np.linalg.norm(got.astype(np.float64), axis=1)).max())


def test_vectors_equal_transformers(binary: Path, small: Small, tmp_path: Path) -> None:
    got = embed(binary, small.artifact, TEXTS, tmp_path / "v.npy")
    assert distance(got, small.want(TEXTS)) < 1e-5
    np.testing.assert_allclose(np.linalg.norm(got, axis=1), 1, rtol=1e-6)
    # The comparison can fail: one letter.
    wrong = [*TEXTS[:2], TEXTS[2].replace("fox", "fob"), *TEXTS[3:]]
    assert distance(got, small.want(wrong)) > 1e-5


@pytest.mark.parametrize(("name", "kind"), [("bert", "first"), ("modernbert", "max")])
def test_other_poolings_and_local_attention(binary: Path, name: str, kind: str, tmp_path: Path) -> None:
    made = compile_small(name, kind, tmp_path)
    assert distance(embed(binary, made.artifact, TEXTS, tmp_path / "v.npy"), made.want(TEXTS)) < 1e-5


def test_same_bits_alone_in_any_batch_with_any_threads(binary: Path, small: Small, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    texts = [*TEXTS, *("xyzzy " * int(n) for n in rng.integers(0, LONGEST, 60))]
    whole = embed(binary, small.artifact, texts, tmp_path / "v.npy", "--threads", "2")
    order = rng.permutation(len(texts))
    shuffled = embed(binary, small.artifact, [texts[i] for i in order], tmp_path / "s.npy", "--threads", "1")
    np.testing.assert_array_equal(shuffled, whole[order])
    for i in (0, 1, 4, 20):
        np.testing.assert_array_equal(embed(binary, small.artifact, [texts[i]], tmp_path / "one.npy")[0], whole[i])


def test_report_counts_what_was_cut(binary: Path, small: Small, tmp_path: Path) -> None:
    source, out = tmp_path / "texts.txt", tmp_path / "v.npy"
    source.write_bytes("\r\n".join(TEXTS).encode())  # the last line has no end
    done = run(binary, small.artifact, "--embed", source, "--out", out, "--json")
    report = json.loads(done.stdout)
    assert list(report) == ["texts", "tokens", "truncated", "width", "timing"]
    assert list(report["timing"]) == ["load_ms", "encode_ms", "total_ms", "texts_s", "tok_s"]
    tokens = sum(map(len, small.ids(TEXTS)))
    assert (report["texts"], report["tokens"], report["truncated"], report["width"]) == (len(TEXTS), tokens, 1, 48)
    assert np.load(out).shape == (len(TEXTS), 48)
    done = run(binary, small.artifact, "--embed", source, "--out", out)
    assert b"fretsaw-run: warning: 1 of 8 texts were cut to 128 tokens\n" in done.stderr
    assert run(binary, small.artifact, "--embed", source, "--out", out, "--quiet").stderr == b""


def test_no_lines_no_rows(binary: Path, small: Small, tmp_path: Path) -> None:
    assert embed(binary, small.artifact, [], tmp_path / "v.npy").shape == (0, 48)


def test_an_error_names_the_line_and_leaves_the_old_file(binary: Path, small: Small, tmp_path: Path) -> None:
    out = tmp_path / "v.npy"
    out.write_bytes(b"old")
    lines = b"fine\n" * 3000 + b"ab\xff\n" + b"fine\n"
    done = run(binary, small.artifact, "--embed", "-", "--out", out, "--json", stdin=lines)
    assert done.returncode == 9
    error = json.loads(done.stdout)["error"]
    assert error["status"] == "bad_input" and error["message"].startswith("line 3001: ") and "UTF-8" in error["message"]
    assert [p.name for p in tmp_path.iterdir()] == ["v.npy"] and out.read_bytes() == b"old"
    done = run(binary, small.artifact, "--embed", "-", "--out", out, stdin=b"ok\n" + b"a" * ((16 << 20) + 1))
    assert done.returncode == 9
    assert b"line 2: 16777217 bytes; a text has at most 16 MiB" in done.stderr
    done = run(binary, small.artifact, "--embed", tmp_path / "absent.txt", "--out", out)
    assert done.returncode == 3 and b"absent.txt" in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["v.npy"] and out.read_bytes() == b"old"


def test_full_disk_leaves_nothing(binary: Path, small: Small, full_disk: int, tmp_path: Path) -> None:
    lines = b"a\n" * (full_disk // (48 * 4) + 1000)
    done = run(binary, small.artifact, "--embed", "-", "--out", tmp_path / "v.npy", stdin=lines)
    assert done.returncode == 13, done.stderr.decode()
    assert f"cannot write '{tmp_path / 'v.npy'}': File too large" in done.stderr.decode()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_stopped_in_the_middle(binary: Path, small: Small, number: signal.Signals, tmp_path: Path) -> None:
    out, part = tmp_path / "v.npy", tmp_path / "v.npy.part"
    command: list[str | Path] = [binary, small.artifact, "--embed", "-", "--out", out]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdin is not None
        process.stdin.write(b"some text\n" * 1000)
        process.stdin.flush()
        until = time.monotonic() + 30
        while not part.exists() and time.monotonic() < until:
            time.sleep(0.01)
        busy = run(binary, small.artifact, "--embed", "-", "--out", out, stdin=b"")
        assert busy.returncode == 15 and b"is being written by another process" in busy.stderr
        process.send_signal(number)
        code = process.wait(30)
    assert code == (-9 if number == signal.SIGKILL else 130)
    assert not out.exists()
    assert part.exists() == (number == signal.SIGKILL)
    assert embed(binary, small.artifact, ["after"], out).shape == (1, 48)
    assert [p.name for p in tmp_path.iterdir()] == ["v.npy"]


def check(done: subprocess.CompletedProcess[bytes], code: int, words: str) -> None:
    assert (done.returncode, done.stderr.decode()) == (code, f"fretsaw-run: error: {words}\n")


def test_what_does_not_fit_is_refused(binary: Path, small: Small, tiny: Tiny, tmp_path: Path) -> None:
    out = tmp_path / "v.npy"
    check(
        run(binary, tiny.path, "--embed", "-", "--out", out, stdin=b"a\n"), 11,
        "only encoders embed texts; the artifact holds a model of kind 'decoder', which generates text "
        "(fretsaw-run --prompt)",
    )  # fmt: skip
    kind = "only decoders generate text; the artifact holds a model of kind 'encoder', which embeds texts "
    generate = kind + "(fretsaw-run --embed)"
    check(run(binary, small.artifact, "--prompt", "a"), 11, generate)
    check(run(binary, small.artifact, "--batch", "-", "--out", out, stdin=b""), 11, generate)
    check(run(binary, small.artifact, "--bench"), 11, generate)
    check(
        run(binary, small.artifact, "--embed", "-", "--out", out, "--chat"), 2,
        "--embed generates nothing; leave out --chat, --stop, --context and --kv-memory",
    )  # fmt: skip
    check(
        run(binary, small.artifact, "--embed", "-", "--out", "/dev/null", stdin=b""), 2,
        "'/dev/null' is not a plain file; the vectors are written beside it and renamed",
    )  # fmt: skip
    assert run(binary, small.artifact, "--embed", "-").returncode == 2
    assert list(tmp_path.iterdir()) == []


def test_without_a_pooling_the_artifact_says_what_to_add(binary: Path, tmp_path: Path) -> None:
    made = compile_small("bert", "", tmp_path)
    check(
        run(binary, made.artifact, "--embed", "-", "--out", tmp_path / "v.npy", stdin=b"a\n"), 11,
        "the artifact gives one vector per token, because its checkpoint had no modules.json that says how to pool "
        "them; add sentence-transformers' modules.json and 1_Pooling/config.json to the checkpoint and compile it "
        "again",
    )  # fmt: skip
