"""fretsaw-run --batch on a program with a closed form: order, errors by line, limits, resuming after kill -9."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.runtime_py.conftest import CONTEXT, EOS, Tiny
from tests.runtime_py.tiny_program import expected_greedy

pytestmark = pytest.mark.native

SOME_FAILED = 20
Result = dict[str, object]


def batch(
    binary: Path, model: Path, lines: bytes, folder: Path, *args: str, code: int = 0
) -> tuple[list[Result], Result]:
    """Results and summary of a whole run."""
    source, out = folder / "in.jsonl", folder / "out.jsonl"
    source.write_bytes(lines)
    command: list[str | Path] = [binary, model, "--batch", source, "--out", out, "--json", *args]
    done = subprocess.run(command, capture_output=True, timeout=120, check=False)
    assert done.returncode == code, done.stderr.decode()
    assert not (folder / "out.jsonl.journal").exists()
    return results(out), json.loads(done.stdout)


def results(out: Path) -> list[Result]:
    return [json.loads(line) for line in out.read_bytes().splitlines()]


def dump(requests: list[Result]) -> bytes:
    return b"".join(json.dumps(r).encode() + b"\n" for r in requests)


def message(result: Result) -> str:
    error = result["error"]
    assert isinstance(error, dict)
    return str(error["message"])


def some_requests(count: int, seed: int = 0) -> list[Result]:
    rng = random.Random(seed)
    return [
        {
            "id": f"r{i}",
            "ids": [rng.randrange(250) for _ in range(rng.randrange(1, 30))],
            "max_new_tokens": rng.randrange(1, 18),
            "ignore_eos": True,
        }
        for i in range(count)
    ]


@pytest.mark.parametrize("budget", [1, 3, 7, 64])
@pytest.mark.parametrize("sequences", [1, 5, 64])
def test_order_is_kept_and_tokens_are_those_of_single_runs(
    binary: Path, tiny: Tiny, tmp_path: Path, budget: int, sequences: int
) -> None:
    requests = some_requests(40)
    got, summary = batch(
        binary, tiny.path, dump(requests), tmp_path, f"--max-batch-tokens={budget}", f"--max-sequences={sequences}"
    )
    assert [r["id"] for r in got] == [r["id"] for r in requests]
    assert [r["line"] for r in got] == list(range(1, 41))
    for request, result in zip(requests, got, strict=True):
        ids, count = request["ids"], request["max_new_tokens"]
        assert isinstance(ids, list) and isinstance(count, int)
        assert result["tokens"] == expected_greedy(ids, count)
        assert result["finish_reason"] == "length"
        assert result["prompt_tokens"] == len(ids)
    assert (summary["lines"], summary["done"], summary["resumed"], summary["failed"]) == (40, 40, 0, 0)
    assert summary["new_tokens"] == sum(len(r["tokens"]) for r in got)  # type: ignore[arg-type, misc]


def test_a_result_has_exactly_the_promised_keys(binary: Path, tiny: Tiny, tmp_path: Path) -> None:
    got, summary = batch(binary, tiny.path, b'{"prompt": "!", "max_new_tokens": 3}', tmp_path)  # no newline at the end
    assert list(got[0]) == ["line", "prompt_tokens", "tokens", "text", "finish_reason", "timing", "key"]
    assert (got[0]["tokens"], got[0]["text"]) == ([33, 66, 132], "!B\N{REPLACEMENT CHARACTER}")
    timing = got[0]["timing"]
    assert isinstance(timing, dict) and list(timing) == ["queue_ms", "ttft_ms", "total_ms"]
    assert 0 <= timing["queue_ms"] <= timing["ttft_ms"] <= timing["total_ms"]
    assert list(summary) == [
        *("lines", "done", "resumed", "failed", "steps", "prompt_tokens", "shared_tokens", "new_tokens"),
        *("timing", "memory"),
    ]


def test_every_option_of_a_line(binary: Path, tiny: Tiny, tmp_path: Path) -> None:
    requests: list[Result] = [
        {"ids": [EOS]},
        {"ids": [EOS], "ignore_eos": True},
        {"ids": [13], "stop": ["zzz", "4h"], "max_new_tokens": 8},
        {"ids": [13], "stop": "4h", "max_new_tokens": 8, "id": 7},
        {"messages": [{"role": "system", "content": "S"}, {"role": "user", "content": "hey"}], "max_new_tokens": 2},
        {"ids": [3], "temperature": 50, "seed": 1, "ignore_eos": True, "max_new_tokens": 12},
        {"ids": [3], "temperature": 50, "seed": 2, "ignore_eos": True, "max_new_tokens": 12},
        {"ids": [3], "temperature": 50, "seed": 2, "top_k": 1, "ignore_eos": True, "max_new_tokens": 12},
        {"ids": [1], "timeout_ms": 0},
    ]
    got, _ = batch(binary, tiny.path, dump(requests), tmp_path, "--max-new-tokens", "2", "--seed", "9")
    assert (got[0]["tokens"], got[0]["finish_reason"]) == ([EOS], "stop")
    assert got[1]["tokens"] == expected_greedy([EOS], 2)
    for result in got[2:4]:
        assert (result["text"], result["finish_reason"]) == ("\r\x1a", "stop_string")
    assert got[3]["id"] == 7
    assert got[4]["tokens"] == expected_greedy(list(b"[system]S[user]hey>"), 2)
    assert got[5]["tokens"] != got[6]["tokens"]
    assert got[7]["tokens"] == expected_greedy([3], 12)
    assert (got[8]["tokens"], got[8]["finish_reason"]) == ([], "deadline")
    # The same draws as a run of its own.
    args = ["--ids", "3", "--temperature", "50", "--seed", "2", "--ignore-eos", "-n", "12", "--json"]
    alone = subprocess.run([binary, tiny.path, *args], capture_output=True, check=True)
    assert json.loads(alone.stdout)["tokens"] == got[6]["tokens"]


BAD_LINES: list[tuple[bytes, str, str]] = [
    (b"", "bad_input", "the line is empty"),
    (b" \t", "bad_input", "the line is empty"),
    (b"[1]", "bad_input", "the line is not a JSON object"),
    (b'{"prompt": "\xff"}', "bad_input", "the line is not valid UTF-8"),
    (b'{"prompt": ""}', "bad_input", "the prompt is empty; give at least one token of text"),
    (b'{"ids": []}', "bad_input", "the prompt is empty; give at least one token of text"),
    (b'{"prompt": 3}', "bad_input", '"prompt" must be a string'),
    (b"{}", "bad_input", 'give one of "prompt", "ids" and "messages"'),
    (b'{"prompt": "a", "ids": [1]}', "bad_input", 'give one of "prompt", "ids" and "messages"'),
    (b'{"ids": [1, -1]}', "bad_input", "token id -1 is outside every vocabulary"),
    (b'{"ids": [260]}', "bad_input", "token id 260 is outside the vocabulary of 260"),
    (b'{"ids": [1.5]}', "bad_input", '"ids" must be a list of token ids'),
    (b'{"ids": [1], "seed": -1}', "bad_input", '"seed" must be a whole number, 0 or more'),
    (b'{"ids": [1], "max_new_tokens": 1.5}', "bad_input", '"max_new_tokens" must be a whole number'),
    (
        b'{"ids": [1], "max_new_tokens": 0}',
        "usage",
        "max-new-tokens: 0 is impossible; it must be at least 1",
    ),
    (b'{"ids": [1], "top_p": 2}', "usage", "top-p: 2 is impossible; it must be over 0 and at most 1"),
    (b'{"ids": [1], "stop": [1]}', "bad_input", '"stop" must be a string or a list of strings'),
    (b'{"ids": [1], "id": []}', "bad_input", '"id" must be a string or a number'),
    (
        b'{"messages": [{"role": "user"}]}',
        "bad_input",
        '"messages" must be a list of {"role": "...", "content": "..."}',
    ),
    (
        json.dumps({"ids": [1] * (CONTEXT + 1)}).encode(),
        "prompt_too_long",
        "the prompt has 49 tokens, the context has room for 48; shorten the prompt or raise the context",
    ),
]


def test_bad_lines_are_reported_and_the_rest_is_done(binary: Path, tiny: Tiny, tmp_path: Path) -> None:
    good = b'{"ids": [5], "max_new_tokens": 2}\n'
    lines = b"".join(line + b"\n" + good for line, _, _ in BAD_LINES)
    got, summary = batch(binary, tiny.path, lines, tmp_path, code=SOME_FAILED)
    assert len(got) == 2 * len(BAD_LINES)
    assert summary["failed"] == len(BAD_LINES)
    for i, (_, status, text) in enumerate(BAD_LINES):
        bad, fine = got[2 * i], got[2 * i + 1]
        assert list(bad) == ["line", "error", "key"]
        assert bad["line"] == 2 * i + 1
        assert isinstance(bad["error"], dict)
        assert (bad["error"]["status"], bad["error"]["message"]) == (status, text)
        assert fine["tokens"] == [5, 10]


def test_broken_json_and_unknown_keys_say_where(binary: Path, tiny: Tiny, tmp_path: Path) -> None:
    lines = b'{"ids": [1]\n{"ids": [1], "tempratur": 1, "id": "x"}\n' + b"[" * 100 + b"\n"
    got, _ = batch(binary, tiny.path, lines, tmp_path, code=SOME_FAILED)
    assert "not valid JSON" in message(got[0]) and "column 12" in message(got[0])
    assert message(got[1]).startswith('"tempratur" is not a key of a request; known are prompt, ids,')
    assert got[1]["id"] == "x"
    assert message(got[2]) == "the line: nested deeper than 16 levels"


def test_a_giant_line_costs_bounded_memory(binary: Path, tiny: Tiny, tmp_path: Path) -> None:
    giant = b'{"prompt": "' + b"a" * (300 << 20) + b'"}\n'
    got, summary = batch(binary, tiny.path, giant + b'{"ids": [5], "max_new_tokens": 2}\n', tmp_path, code=SOME_FAILED)
    assert message(got[0]) == f"the line has {len(giant) - 1} bytes, more than the limit of {16 << 20}"
    assert got[1]["tokens"] == [5, 10]
    memory = summary["memory"]
    assert isinstance(memory, dict) and memory["peak_rss_bytes"] < 200 << 20


def test_memory_stays_under_the_limit_and_what_never_fits_is_refused(binary: Path, tiny: Tiny, tmp_path: Path) -> None:
    column = 6 * 8 * 9 * 4  # 8 tokens in all rows, bytes
    requests: list[Result] = [{"ids": [1] * 20, "max_new_tokens": 5, "ignore_eos": True} for _ in range(9)]
    requests += [{"ids": [1] * 40, "max_new_tokens": 9, "ignore_eos": True}]  # 48 tokens: 6 pages
    got, summary = batch(
        binary, tiny.path, dump(requests), tmp_path, "--kv-memory", str(5 * column + 1), code=SOME_FAILED
    )
    for result in got[:9]:
        assert result["tokens"] == expected_greedy([1] * 20, 5)
    assert message(got[9]) == (
        "prompt and max-new-tokens are 48 tokens, which need 10368 bytes of KV cache; it has 8640 bytes; "
        "shorten them or raise kv-memory"
    )
    memory = summary["memory"]
    assert isinstance(memory, dict)
    assert memory["kv_bytes"] == 5 * column
    assert memory["kv_peak_bytes"] <= 5 * column


def finished_lines(out: Path) -> set[int]:
    """Numbers of the lines whose results are on disk, in their place or in the journal; a torn last line is none."""
    files = [path for path in (out, out.with_name(out.name + ".journal")) if path.exists()]
    lines = [line for path in files for line in path.read_bytes().splitlines(keepends=True)]
    return {json.loads(line)["line"] for line in lines if line.endswith(b"\n")}


def kill_after(command: list[str | Path], lines: bytes, out: Path, first: bool, wanted: int) -> set[int]:
    """Kill a run once ``wanted`` lines are done, the first line among them if ``first``; return what is done.

    The lines come through a pipe that stays open, so the run cannot end before the kill, however fast it is.
    """
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL) as process:
        assert process.stdin is not None
        process.stdin.write(lines)
        process.stdin.flush()
        done = finished_lines(out)
        while len(done) < wanted or (first and 1 not in done):
            assert process.poll() is None
            time.sleep(0.001)
            done = finished_lines(out)
        process.send_signal(signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    return finished_lines(out)


def test_killed_at_any_moment_it_goes_on_without_redoing_lines(binary: Path, tiny: Tiny, tmp_path: Path) -> None:
    path = tiny.variation(lambda m, s: m["model"].update({"context": 4000}))  # type: ignore[attr-defined]
    requests = some_requests(240, seed=1)
    requests[0]["max_new_tokens"] = 2500  # while it runs, everything else is early and goes through the journal
    lines = dump(requests)
    assert len(lines) < 60000  # what a pipe takes while nobody reads
    (tmp_path / "whole").mkdir()
    whole, _ = batch(binary, path, lines, tmp_path / "whole")
    out = tmp_path / "out.jsonl"
    command: list[str | Path] = [binary, path, "--batch", "-", "--out", out, "--json", "--max-sequences", "4"]
    rng = random.Random(3)
    done: set[int] = set()
    for kill in range(12):
        part = b"".join(lines.splitlines(keepends=True)[: 40 + 16 * kill])
        now = kill_after(command, part, out, kill == 8, min(len(done) + rng.randrange(1, 20), 40 + 16 * kill))
        assert now >= done
        done = now
        # Counted in steps, 2,500 of line 1 are hundreds of other lines: some are in the journal whatever the speed.
        assert out.with_name("out.jsonl.journal").stat().st_size > 0
    assert 1 in done and len(done) < len(requests)
    ended = subprocess.run(command, input=lines, capture_output=True, timeout=60, check=False)
    assert ended.returncode == 0, ended.stderr.decode()
    summary = json.loads(ended.stdout)
    assert (summary["resumed"], summary["done"]) == (len(done), len(requests) - len(done))
    assert [strip(r) for r in results(out)] == [strip(r) for r in whole]
    assert not (tmp_path / "out.jsonl.journal").exists()


def strip(result: Result) -> Result:
    return {k: v for k, v in result.items() if k != "timing"}


def test_a_torn_line_is_cut_off_and_done_again(binary: Path, tiny: Tiny, tmp_path: Path) -> None:
    lines = dump(some_requests(6))
    whole, _ = batch(binary, tiny.path, lines, tmp_path)
    out = tmp_path / "out.jsonl"
    data = out.read_bytes()
    ends = [i + 1 for i, byte in enumerate(data) if byte == 10]
    for cut in (0, 1, 5, ends[0], ends[0] + 3, ends[3] - 1, len(data) - 1):
        out.write_bytes(data[:cut])
        got, summary = batch(binary, tiny.path, lines, tmp_path)
        assert summary["resumed"] == sum(end <= cut for end in ends)
        assert [strip(r) for r in got] == [strip(r) for r in whole]


def test_resuming_remembers_failures(binary: Path, tiny: Tiny, tmp_path: Path) -> None:
    lines = b'oops\n{"ids": [5], "max_new_tokens": 2}\n'
    batch(binary, tiny.path, lines, tmp_path, code=SOME_FAILED)
    _, summary = batch(binary, tiny.path, lines, tmp_path, code=SOME_FAILED)
    assert (summary["done"], summary["resumed"], summary["failed"]) == (0, 2, 1)


def refused(binary: Path, *args: str | Path) -> tuple[int, str]:
    done = subprocess.run([binary, *args], capture_output=True, timeout=60, check=False)
    return done.returncode, done.stderr.decode()


def test_results_of_something_else_are_never_touched(binary: Path, tiny: Tiny, tmp_path: Path) -> None:
    lines = dump(some_requests(3))
    batch(binary, tiny.path, lines, tmp_path)
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    made = out.read_bytes()
    command = (tiny.path, "--batch", source, "--out", out)
    other = (
        f"fretsaw-run: error: '{out}' holds a result for line 1 that was made from another line, other options or "
        "another model; choose another --out\n"
    )
    assert refused(binary, *command, "--temperature", "0.5") == (2, other)
    source.write_bytes(dump(some_requests(3, seed=5)))
    assert refused(binary, *command) == (2, other)
    assert out.read_bytes() == made
    source.write_bytes(b"".join(lines.splitlines(keepends=True)[:2]))
    assert refused(binary, *command) == (
        2,
        f"fretsaw-run: error: '{out}' holds a result for line 3, but there are only 2 lines; choose another --out\n",
    )
    for foreign, line in ((b"my only copy\n", 1), (b"my only copy", 1), (made + b"{}\n", 4), (made + made, 4)):
        out.write_bytes(foreign)
        assert refused(binary, *command) == (
            2,
            f"fretsaw-run: error: '{out}' exists and its line {line} is not a result of a batch; choose another "
            "--out\n",
        )
        assert out.read_bytes() == foreign


def test_usage(binary: Path, tiny: Tiny, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    missing = tmp_path / "none.jsonl"
    assert refused(binary, tiny.path, "--batch", missing, "--out", out) == (
        3,
        f"fretsaw-run: error: cannot open '{missing}': No such file or directory\n",
    )
    assert not out.exists()
    assert "--batch requires --out" in refused(binary, tiny.path, "--batch", missing)[1]
    code, text = refused(binary, tiny.path, "--batch", missing, "--out", out, "--prompt", "x")
    assert (code, text) == (
        2,
        "fretsaw-run: error: --batch reads its prompts from a file; leave out --prompt, --prompt-file, --ids and "
        "--bench\n",
    )
    source = tmp_path / "in.jsonl"
    source.write_bytes(b'{"ids": [1]}\n')
    assert refused(binary, tiny.path, "--batch", source, "--out", out, "--kv-memory", "1KB") == (
        2,
        "fretsaw-run: error: kv-memory: 1024 bytes hold no token; 1728 bytes hold the first 8\n",
    )
    assert refused(binary, tiny.path, "--batch", source, "--out", out, "--context", "49")[0] == 2
    assert refused(binary, tiny.path, "--batch", source, "--out", tmp_path / "no" / "out")[0] == 3


def test_one_writer_at_a_time_and_interrupt_keeps_what_is_done(binary: Path, tiny: Tiny, tmp_path: Path) -> None:
    path = tiny.variation(lambda m, s: m["model"].update({"context": 60000}))  # type: ignore[attr-defined]
    out = tmp_path / "out.jsonl"
    requests: list[Result] = [
        {"ids": [5], "max_new_tokens": 2},
        {"ids": [0], "max_new_tokens": 50000, "ignore_eos": True},
    ]
    command: list[str | Path] = [binary, path, "--batch", "-", "--out", out]
    # Its input stays open: however fast, it does not end by itself.
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin is not None
        process.stdin.write(dump(requests))
        process.stdin.flush()
        while 1 not in finished_lines(out):
            assert process.poll() is None
            time.sleep(0.002)
        assert refused(binary, *command[1:]) == (
            15,
            f"fretsaw-run: error: '{out}' is being written by another process\n",
        )
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=60) == 130
    assert results(out)[0]["tokens"] == [5, 10]


def test_a_full_disk_is_an_error_and_nothing_is_lost(binary: Path, tiny: Tiny, tmp_path: Path) -> None:
    requests = some_requests(200)
    for i, request in enumerate(requests):
        request["id"] = str(i) * 5000
    lines = dump(requests)
    (tmp_path / "whole").mkdir()
    whole, _ = batch(binary, tiny.path, lines, tmp_path / "whole")
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_bytes(lines)
    # A limit on the size of files stands for a full disk: write() fails half way through a line.
    done = subprocess.run(
        [
            "bash",
            "-c",
            'trap "" XFSZ; ulimit -f 1024; exec "$@"',
            "-",
            binary,
            tiny.path,
            "--batch",
            source,
            "--out",
            out,
        ],
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 13
    assert done.stderr.decode() == f"fretsaw-run: error: cannot write results to '{out}': File too large\n"
    assert max(out.stat().st_size, (tmp_path / "out.jsonl.journal").stat().st_size) == 1 << 20
    got, summary = batch(binary, tiny.path, lines, tmp_path)
    assert summary["resumed"] != 0
    assert [strip(r) for r in got] == [strip(r) for r in whole]


@pytest.mark.parametrize("stream", ["stderr", "stdout"])
def test_who_watches_may_leave(binary: Path, tiny: Tiny, tmp_path: Path, stream: str) -> None:
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_bytes(dump(some_requests(20)))
    command: list[str | Path] = [binary, tiny.path, "--batch", source, "--out", out]
    if stream == "stdout":
        command.append("--json")
    read, write = os.pipe()
    os.close(read)  # whatever is written fails
    streams = {stream: write, ("stdout" if stream == "stderr" else "stderr"): subprocess.DEVNULL}
    done = subprocess.run(command, timeout=60, check=False, **streams)  # type: ignore[call-overload]
    os.close(write)
    assert done.returncode == (13 if stream == "stdout" else 0)  # a summary that was asked for is missing
    assert len(results(out)) == 20


def test_a_device_is_no_place_for_results(binary: Path, tiny: Tiny, tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_bytes(b'{"ids": [5], "max_new_tokens": 2}\n')
    assert refused(binary, tiny.path, "--batch", source, "--out", "/dev/null") == (
        2,
        "fretsaw-run: error: '/dev/null' is not a plain file; results are read back to go on after a stop\n",
    )
