"""fretsaw-run on a program with a closed form: ids, text, stops, limits, reports, and every error."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.runtime_py.conftest import EOS, Tiny
from tests.runtime_py.tiny_program import VOCAB, expected_greedy

pytestmark = pytest.mark.native


def run(binary: Path, *args: str | Path, stdin: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run([binary, *args], input=stdin, capture_output=True, timeout=60, check=False)


def run_json(binary: Path, *args: str | Path, code: int = 0) -> dict[str, object]:
    done = run(binary, *args, "--json")
    assert done.returncode == code, done.stderr.decode()
    report = json.loads(done.stdout)
    assert isinstance(report, dict)
    return report


@pytest.mark.parametrize("prompt", [[5], [1, 2, 3], list(range(20)), [255, 254] * 15])
def test_greedy_ids_over_pages_and_chunks(binary: Path, tiny: Tiny, prompt: list[int]) -> None:
    ids = ",".join(map(str, prompt))
    report = run_json(binary, tiny.path, "--ids", ids, "--max-new-tokens", "16", "--ignore-eos")
    assert report["tokens"] == expected_greedy(prompt, 16)
    assert report["prompt_tokens"] == len(prompt)
    assert report["finish_reason"] == "length"


def test_report_has_exactly_the_promised_keys(binary: Path, tiny: Tiny) -> None:
    report = run_json(binary, tiny.path, "--prompt", "hi", "--max-new-tokens", "3")
    assert list(report) == ["prompt_tokens", "tokens", "text", "finish_reason", "timing", "memory"]
    timing, memory = report["timing"], report["memory"]
    assert isinstance(timing, dict) and isinstance(memory, dict)
    assert set(timing) == {"load_ms", "prefill_ms", "prefill_tok_s", "decode_tok_s"}
    assert set(memory) == {"weights_bytes", "kv_bytes", "peak_rss_bytes"}
    assert memory["weights_bytes"] == VOCAB * 4 + 12
    # 5 tokens are one page of 8 tokens, 4 + 5 floats each, in 6 rows.
    assert memory["kv_bytes"] == 6 * 8 * 9 * 4
    assert memory["peak_rss_bytes"] > 1 << 20
    assert all(value > 0 for value in timing.values())


def test_text_streams_and_matches_the_report(binary: Path, tiny: Tiny) -> None:
    args = (tiny.path, "--prompt", "!", "--max-new-tokens", "3")
    report = run_json(binary, *args)
    assert report["tokens"] == [33, 66, 132]  # 33, 33+33, 66+66
    assert report["text"] == "!B\N{REPLACEMENT CHARACTER}"
    plain = run(binary, *args)
    assert plain.stdout.decode() == "!B\N{REPLACEMENT CHARACTER}\n"
    assert b"prefill 1 tokens" in plain.stderr
    assert run(binary, *args, "--quiet").stderr == b""


def test_stops_at_the_end_token_unless_told_otherwise(binary: Path, tiny: Tiny) -> None:
    prompt = str(EOS)  # the sum is the end token at once
    report = run_json(binary, tiny.path, "--ids", prompt)
    assert (report["tokens"], report["text"], report["finish_reason"]) == ([EOS], "", "stop")
    report = run_json(binary, tiny.path, "--ids", prompt, "--ignore-eos", "--max-new-tokens", "2")
    assert report["tokens"] == expected_greedy([EOS], 2)


def test_stop_string_across_tokens_is_not_printed(binary: Path, tiny: Tiny) -> None:
    # 13 -> \r, 26, 52 '4', 104 'h', 208, ...
    args = (tiny.path, "--ids", "13", "--max-new-tokens", "8")
    report = run_json(binary, *args, "--stop", "zzz", "--stop", "4h")
    assert (report["text"], report["finish_reason"]) == ("\r\x1a", "stop_string")
    assert report["tokens"] == [13, 26, 52, 104]
    assert run(binary, *args, "--stop", "4h").stdout == b"\r\x1a\n"
    # The start of a stop string that never completes is printed after all.
    report = run_json(binary, tiny.path, "--ids", "13", "--max-new-tokens", "4", "--stop", "hX")
    assert (report["text"], report["finish_reason"]) == ("\r\x1a4h", "length")


def test_context_full_ends_with_length(binary: Path, tiny: Tiny) -> None:
    ids = " ".join(["0"] * 10)
    report = run_json(binary, tiny.path, "--ids", ids, "--context", "12", "--ignore-eos")
    assert (len(report["tokens"]), report["finish_reason"]) == (3, "length")  # type: ignore[arg-type]


def test_prompt_from_file_and_standard_input(binary: Path, tiny: Tiny, tmp_path: Path) -> None:
    file = tmp_path / "prompt.txt"
    file.write_text("ab")
    want = expected_greedy([97, 98], 4)
    args = (tiny.path, "--max-new-tokens", "4", "--ignore-eos", "--json")
    for source, stdin in (["--prompt-file", str(file)], None), (["--prompt", "-"], b"ab"), (["-f", "-"], b"ab"):
        done = run(binary, *args, *source, stdin=stdin)
        assert json.loads(done.stdout)["tokens"] == want, source


def test_chat_applies_the_template(binary: Path, tiny: Tiny) -> None:
    text = "[system]S[user]hey>"
    report = run_json(binary, tiny.path, "--chat", "--system", "S", "--prompt", "hey", "--max-new-tokens", "2")
    assert report["prompt_tokens"] == len(text)
    assert report["tokens"] == expected_greedy(list(text.encode()), 2)


def test_seed_decides_the_draws(binary: Path, tiny: Tiny) -> None:
    def draw(seed: str) -> object:
        args = ("--ids", "3", "--temperature", "50", "--seed", seed, "--ignore-eos", "-n", "12")
        return run_json(binary, tiny.path, *args)["tokens"]

    assert draw("1") == draw("1")
    assert draw("1") != draw("2")


def test_bench_reports_medians(binary: Path, tiny: Tiny) -> None:
    report = run_json(
        binary, tiny.path, "--bench", "--prefill", "20", "--decode", "5", "--repeat", "4", "--threads", "1"
    )
    assert report["variant"] == "llvm-x86-64"
    runs = report["runs"]
    assert isinstance(runs, dict) and len(runs["prefill_ms"]) == len(runs["decode_ms"]) == 4
    assert run(binary, tiny.path, "--bench", "--prefill", "8", "--decode", "2").returncode == 0


def test_verify_needs_no_code_that_runs(binary: Path, tiny: Tiny) -> None:
    path = tiny.variation(lambda m, s: s.update({"code/llvm-x86-64": b"not code at all"}))
    report = run_json(binary, path, "--verify")
    assert report == {"verified": True, "sections": 5, "bytes": path.stat().st_size}
    assert run_json(binary, path, "--ids", "1", code=7)["error"]["status"] == "corrupt"  # type: ignore[index]


def test_verify_finds_damaged_weights_and_a_plain_run_does_not_look(binary: Path, tiny: Tiny, tmp_path: Path) -> None:
    data = bytearray(tiny.path.read_bytes())
    at = bytes(data).index(tiny.sections["weights"][:64])
    data[at + 4 * 200] ^= 1  # a low bit of one bias
    path = tmp_path / "damaged.fsaw"
    path.write_bytes(data)
    assert run(binary, path, "--ids", "1", "-n", "1").returncode == 0
    for extra in [], ["--ids", "1"]:
        done = run(binary, path, "--verify", *extra)
        assert done.returncode == 7
        assert b"digest of section 'weights' differs" in done.stderr


def test_damaged_code_is_never_loaded(binary: Path, tiny: Tiny, tmp_path: Path) -> None:
    data = bytearray(tiny.path.read_bytes())
    data[-1] ^= 1
    path = tmp_path / "code.fsaw"
    path.write_bytes(data)
    done = run(binary, path, "--ids", "1")
    assert done.returncode == 7
    assert b"digest of section 'code/llvm-x86-64' differs" in done.stderr


def test_interrupt_exits_130(binary: Path, tiny: Tiny) -> None:
    path = tiny.variation(lambda m, s: m["model"].update({"context": 60000}))  # type: ignore[attr-defined]
    command: list[str | Path] = [binary, path, "--ids", "0", "--ignore-eos", "--max-new-tokens", "50000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.read(20)  # it is generating
        time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
        assert process.returncode == 130
        assert b"cancelled" in errors


def test_help_and_version(binary: Path) -> None:
    assert b"Examples:" in run(binary, "--help").stdout
    assert run(binary, "--version").stdout.startswith(b"fretsaw-run 0.")
