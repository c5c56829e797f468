"""Each kind of bad input to fretsaw-run: its exit code, its words, and the JSON form of the error."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runtime_py.conftest import Tiny
from tests.runtime_py.test_fretsaw_run import run

pytestmark = pytest.mark.native


def check(binary: Path, args: list[str | Path], code: int, words: str, stdin: bytes | None = None) -> None:
    """Both forms: words and exit code, nothing on stdout; and the JSON object."""
    plain = run(binary, *args, stdin=stdin)
    message = plain.stderr.decode()
    assert message.startswith("fretsaw-run: error: "), message
    assert words in message
    assert (plain.returncode, plain.stdout) == (code, b"")
    report = json.loads(run(binary, *args, "--json", stdin=stdin).stdout)["error"]
    assert report["code"] == code
    assert words in report["message"]


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["--prompt", ""], 9, "the prompt is empty"),
        (["--ids", " , "], 9, "the prompt is empty"),
        (["--ids", "1,x"], 9, "'x' does not start with a token id"),
        (["--ids", "1,2.5"], 9, "does not start with a token id"),
        (["--ids", "260"], 9, "token id 260 is outside the vocabulary of 260"),
        (["--ids", "-1"], 9, "token id -1 is outside"),
        (["--prompt-file", "/nonexistent/p"], 3, "cannot open prompt file '/nonexistent/p'"),
        (["--prompt", "a" * 49], 10, "the prompt has 49 tokens, the context is 48"),
        (["--prompt", "abc", "--context", "2"], 10, "the prompt has 3 tokens, the context is 2"),
        (["--prompt", "abc", "--context", "49"], 2, "not between 1 and the model's 48"),
        (["--prompt", "a", "--temperature", "-1"], 2, "temperature: -1 is impossible"),
        (["--prompt", "a", "--temperature", "nan"], 2, "temperature: nan is impossible"),
        (["--prompt", "a", "--top-p", "0"], 2, "top-p: 0 is impossible"),
        (["--prompt", "a", "--top-p", "1.5"], 2, "top-p: 1.5 is impossible"),
        (["--prompt", "a", "--top-k", "-3"], 2, "top-k: -3 is impossible"),
        (["--prompt", "a", "--min-p", "2"], 2, "min-p: 2 is impossible"),
        (["--prompt", "a", "--repetition-penalty", "0"], 2, "repetition-penalty: 0 is impossible"),
        (["--prompt", "a", "--max-new-tokens", "0"], 2, "max-new-tokens: 0 is impossible"),
        (["--prompt", "a", "--threads", "0"], 2, "threads"),
        (["--prompt", "a", "--cpu", "riscv"], 2, "no variant 'riscv'; it has llvm-future, llvm-x86-64"),
        (["--prompt", "a", "--cpu", "future"], 8, "llvm-future needs avx9000"),
        (["--prompt", "a", "--bench"], 2, "--bench makes its own prompt"),
        (["--prompt", "a", "--ids", "1"], 2, "excludes"),
        (["--prompt", "a", "--system", "b"], 2, "requires --chat"),
        (["--no-such-option"], 2, "--no-such-option"),
        ([], 2, "no prompt"),
    ],
)
def test_options_and_prompts(binary: Path, tiny: Tiny, args: list[str | Path], code: int, words: str) -> None:
    check(binary, [tiny.path, *args], code, words)


def test_invalid_utf8(binary: Path, tiny: Tiny) -> None:
    check(binary, [tiny.path, "--prompt", "-"], 9, "UTF-8", stdin=b"ab\xff\xfe")


def test_files_that_are_not_artifacts(binary: Path, tiny: Tiny, tmp_path: Path) -> None:
    data = tiny.path.read_bytes()
    newer = bytearray(data)
    newer[8:16] = (7).to_bytes(4, "little") + (6).to_bytes(4, "little")
    older = bytearray(data)
    older[8:16] = (1).to_bytes(4, "little") * 2
    older[96:128] = hashlib.sha256(older[:96]).digest()
    cases = {
        "magic": (b"GGUF" + data[4:], 4, "does not start with the FRETSAW signature"),
        "newer": (bytes(newer), 5, "format version 7 needs a reader of version 6, this one has version 2"),
        "older": (bytes(older), 11, "format version 1, written by an older Fretsaw; this one reads version 2: compile"),
        "empty": (b"", 6, "the file is empty"),
        "short": (data[:100], 6, "shorter than the header"),
        "cut": (data[:-1], 6, "the header says"),
        "long": (data + b"x", 7, "the header says"),
    }
    for name, (content, code, words) in cases.items():
        path = tmp_path / f"{name}.fsaw"
        path.write_bytes(content)
        check(binary, [path, "--ids", "1"], code, words)
    check(binary, [tmp_path / "absent.fsaw", "--ids", "1"], 3, "No such file")
    check(binary, [tmp_path, "--ids", "1"], 3, "it is a directory")


def test_artifacts_that_do_not_fit(binary: Path, tiny: Tiny) -> None:
    ids: list[str | Path] = ["--ids", "1"]

    def variants(requires: list[str]) -> list[dict[str, object]]:
        return [{"name": "llvm-x", "section": "code/llvm-x86-64", "requires": requires}]

    path = tiny.variation(lambda m, s: m.update({"variants": variants(["avx9000", "sse99"])}))
    check(binary, [path, *ids], 8, "cannot run the artifact: llvm-x needs avx9000, sse99; compile it with --cpu")
    path = tiny.variation(lambda m, s: m["program"].update({"entry": "walk"}))  # type: ignore[attr-defined]
    check(binary, [path, *ids], 7, "program: the manifest names the entry 'walk', which is not there")

    def encoder(manifest: dict[str, object], sections: dict[str, bytes]) -> None:
        manifest["model"].update({"kind": "encoder"})  # type: ignore[attr-defined]
        manifest["embedding"] = {"width": 4, "pooling": "mean", "normalize": True}
        del manifest["kv"]

    path = tiny.variation(encoder)
    words = "the artifact holds a model of kind 'encoder', which embeds texts (fretsaw-run --embed)"
    check(binary, [path, *ids], 11, words)
    check(binary, [path, "--bench"], 11, words)
    path = tiny.variation(lambda m, s: m["model"].update({"kind": "encoder"}))  # type: ignore[attr-defined]
    check(binary, [path, *ids], 7, "manifest: embedding: missing")
    path = tiny.variation(lambda m, s: m["kv"].update({"kv_heads": 1}))  # type: ignore[attr-defined]
    check(binary, [path, *ids], 1, "launch 0 of entry 'step', kernel kernel, failed: ValueError: Invalid lens.shape[2]")
    path = tiny.variation(lambda m, s: m["model"].update({"vocab_size": 200}))  # type: ignore[attr-defined]
    check(binary, [path, *ids], 7, "the program returns something else than logits of shape [1, 200]")
    path = tiny.variation(lambda m, s: m.pop("kv"))
    check(binary, [path, *ids], 7, "manifest: kv: missing")


def test_without_a_tokenizer_only_ids(binary: Path, tiny: Tiny) -> None:
    def drop(manifest: dict[str, object], sections: dict[str, bytes]) -> None:
        del manifest["tokenizer"], sections["tokenizer.json"], sections["chat_template"]

    path = tiny.variation(drop)
    report = json.loads(run(binary, path, "--ids", "5", "-n", "2", "--json").stdout)
    assert (report["tokens"], report["text"]) == ([5, 10], "")
    check(binary, [path, "--prompt", "a"], 11, "has no tokenizer")
    check(binary, [path, "--ids", "5", "--stop", "x"], 11, "stop strings need a tokenizer")


def test_full_disk_on_standard_output(binary: Path, tiny: Tiny) -> None:
    import subprocess

    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [binary, tiny.path, "--prompt", "a", "-n", "3"], stdout=full, stderr=subprocess.PIPE, check=False
        )
    assert done.returncode == 13
    assert b"cannot write to standard output" in done.stderr


def test_an_older_library_is_named(tmp_path: Path) -> None:
    """A library without a function that this package calls is refused by path, function and what to do."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    (tmp_path / "old.c").write_text("void fsw_version(int *v) { v[0] = 0; v[1] = 1; v[2] = 0; }\n")
    library = tmp_path / "libfretsaw.so"
    subprocess.run([compiler, "-shared", "-fPIC", str(tmp_path / "old.c"), "-o", str(library)], check=True)
    code = "from fretsaw.runtime import library\nlibrary.load()"
    env = {**os.environ, "FRETSAW_BUILD": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert f"{library} is older than this package: it has no fsw_last_error; build it again" in done.stderr
