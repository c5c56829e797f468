"""The comparison with another engine's sparse prefill: fit, order of readings, ratios, table. Engines are functions."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from fretsaw.tools.bench.sparse_peers import Contender, attention_seconds, fit, measure, rows, table


def _quadratic(a: float, b: float) -> Callable[[int], float]:
    return lambda n: a * n + b * n * n


def test_fit_finds_both_terms() -> None:
    a, b = fit({n: _quadratic(2e-3, 5e-7)(n) for n in (1000, 2000, 4000, 8000)})
    assert a == pytest.approx(2e-3, rel=1e-9) and b == pytest.approx(5e-7, rel=1e-9)


def test_fit_weighs_relative_errors() -> None:
    """A tenth too much at 1,000 tokens counts; by absolute errors ``a`` would grow by less than 5 % for it."""
    points = {n: _quadratic(2e-3, 5e-7)(n) for n in (1000, 2000, 4000, 8000)}
    a, _ = fit(points | {1000: 1.1 * points[1000]})
    assert a > 1.05 * 2e-3


def test_attention_is_the_quadratic_part_of_medians() -> None:
    times = {str(n): [_quadratic(2e-3, 5e-7)(n)] for n in (1000, 2000, 4000)}
    times["8000"] = [99.0, _quadratic(2e-3, 5e-7)(8000), 1.0]
    assert attention_seconds(times, 8000) == pytest.approx(5e-7 * 8000**2, rel=1e-9)


def _contenders(asked: list[tuple[str, int]]) -> list[Contender]:
    def reader(name: str, seconds: Callable[[int], float]) -> Callable[[int], float]:
        def read(n: int) -> float:
            asked.append((name, n))
            return seconds(n)

        return read

    return [
        Contender("d", "one", "", reader("d", _quadratic(2e-3, 5e-7))),
        Contender("s", "one", "d", reader("s", _quadratic(2e-3, 2e-7))),
        Contender("e", "two", "", reader("e", _quadratic(3e-3, 5e-7))),
    ]


def test_readings_alternate_and_go_on_where_they_stopped() -> None:
    asked: list[tuple[str, int]] = []
    kept: list[int] = []
    times: dict[str, dict[str, list[float]]] = {"d": {"1000": [2.5]}, "s": {"8000": [1.0]}}
    measure(_contenders(asked), times, 8000, [1000], 2, lambda: kept.append(len(asked)))
    assert asked == [("e", 1000), ("d", 8000), ("e", 8000), ("e", 8000), ("s", 8000), ("d", 8000)]
    assert kept == [1, 2, 3, 4, 5, 6]
    assert times["d"]["1000"] == [2.5] and times["s"]["8000"] == pytest.approx([1.0, 28.8])


def test_rows_and_table() -> None:
    times: dict[str, dict[str, list[float]]] = {}
    contenders = _contenders([])
    measure(contenders, times, 8000, [1000, 2000, 4000], 3, lambda: None)
    scores = {"s": {"kl": 0.013, "top1": 0.95, "nll": 2.0}}
    dense, sparse, other = rows(contenders, times, scores, 8000)
    assert sparse["seconds"] == pytest.approx(28.8) and sparse["speed"] == pytest.approx(48 / 28.8)
    assert dense["attention_share"] == pytest.approx(32 / 48) and "speed" not in dense and "kl" not in dense
    assert sparse["saved"] == pytest.approx(0.6)  # 19.2 of 32 s
    assert sparse["kl"] == 0.013 and "nll" not in sparse
    last = table([dense, sparse, other], 8000).splitlines()
    assert last[3] == "| one | `s` | 3 | 28.8 | 1.67 | 67% | 60% | 0.013 | 95.0% |"
    assert "8,000" in last[0]


def test_a_slow_round_does_not_move_the_ratio() -> None:
    times = {"d": {"8000": [48.0, 96.0, 48.0]}, "s": {"8000": [24.0, 48.0, 24.0]}}
    _, sparse = rows(_contenders([])[:2], times, {}, 8000)
    assert sparse["speed"] == 2.0 and "saved" not in sparse  # one length: no fit
