"""Dense peers on one long prompt: each in a process of its own, with a limit of time and one of memory.

The prompt is ids of ``engines.py``: dense attention takes as long whatever it reads. A peer that runs out of either
limit, or fails, is reported as such. llama.cpp's server is asked over HTTP; the others run in ``engines.py`` under the
peers' Python.
"""

from __future__ import annotations

import json
import resource
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fretsaw.tools.bench.engines import prompt

HERE = Path(__file__).parent
PORT, GIB = 18392, 1 << 30
LLAMA_CONTEXT = 256  # the context of llama.cpp's server is a multiple of it, cut down if need be


@dataclass(frozen=True)
class Limits:
    """What a peer may use.

    Args:
        seconds: From the start of its process, loading included.
        gib: Of writable memory, in GiB; what it asks for beyond that it does not get.
        threads: CPU threads.
    """

    seconds: float = 900
    gib: float = 16
    threads: int = 2

    def hold(self) -> None:
        """Bound the memory of the calling process."""
        size = int(self.gib * GIB)
        resource.setrlimit(resource.RLIMIT_DATA, (size, size))


@dataclass(frozen=True)
class Outcome:
    """Seconds from a prompt to its first token, the model being loaded; or why there are none."""

    seconds: float | None
    why: str = ""


def run_engine(python: Path, engine: str, model: Path, tokens: int, limits: Limits) -> Outcome:
    """An engine of ``engines.py``, under the peers' Python."""
    command = [str(python), "-P", str(HERE / "engines.py"), engine, str(model)]
    command += ["--threads", str(limits.threads), "--cases", f"{tokens}:0"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=limits.seconds, preexec_fn=limits.hold, check=False
        )
    except subprocess.TimeoutExpired:
        return _late(limits)
    if done.returncode:
        return Outcome(None, reason(done.stderr, done.returncode))
    found = json.loads(done.stdout.strip().splitlines()[-1])
    return Outcome(float(found["cases"][0]["prefill_s"]))


def reason(stderr: str, status: int) -> str:
    """The last line of what a process said, short."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    said = lines[-1] if lines else "it said nothing"
    return f"ended with status {status}: {said[:160]}"


def run_llama(server: Path, model: Path, tokens: int, limits: Limits, rope: tuple[str, ...]) -> Outcome:
    """llama.cpp's server with a cache and arithmetic in f32.

    Args:
        rope: Its arguments for the scaling of positions.
    """
    command = [str(server), "-m", str(model), "-t", str(limits.threads), "-tb", str(limits.threads), *rope]
    command += ["-c", str(-(-(tokens + 64) // LLAMA_CONTEXT) * LLAMA_CONTEXT), "-np", "1", "-b", "2048", "-ub", "512"]
    command += ["-ctk", "f32", "-ctv", "f32", "-fa", "on"]
    command += ["--port", str(PORT), "--no-warmup", "-ngl", "0", "--log-disable"]
    end = time.monotonic() + limits.seconds
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, stdout=quiet, stderr=quiet, preexec_fn=limits.hold) as process:
        try:
            while not _answers():
                if process.poll() is not None:
                    return Outcome(None, f"ended with status {process.returncode} before it answered")
                if time.monotonic() > end:
                    return _late(limits)
                time.sleep(0.2)
            complete(prompt(64), end)
            return Outcome(complete(prompt(tokens), end))
        except TimeoutError:
            return _late(limits)
        except OSError as error:
            return Outcome(None, f"stopped answering: {error}")
        finally:
            process.terminate()


def _answers() -> bool:
    try:
        urllib.request.urlopen(f"http://127.0.0.1:{PORT}/health", timeout=5).read()
    except OSError:
        return False
    return True


def complete(ids: list[int], end: float) -> float:
    """Ask for one token; the server's own seconds for the prompt.

    Raises:
        TimeoutError: no answer until ``end``, of the monotonic clock.
        OSError: no connection.
    """
    body = {"prompt": ids, "n_predict": 1, "temperature": 0, "ignore_eos": True, "cache_prompt": False}
    asked = urllib.request.Request(
        f"http://127.0.0.1:{PORT}/completion", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    try:
        answer = json.loads(urllib.request.urlopen(asked, timeout=max(1.0, end - time.monotonic())).read())
    except urllib.error.HTTPError as error:
        raise OSError(f"{error}: {error.read(160).decode(errors='replace')}") from error
    if answer["tokens_evaluated"] != len(ids):
        raise OSError(f"it read {answer['tokens_evaluated']} tokens of {len(ids)}")
    return 1e-3 * float(answer["timings"]["prompt_ms"])


def _late(limits: Limits) -> Outcome:
    return Outcome(None, f"not done after {limits.seconds:.0f} s")


Peer = Callable[[int], Outcome]  # by tokens of the prompt
