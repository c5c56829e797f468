"""The reference cache against lists of vectors: lengths by head, positions beside slots, planes beside pages."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fretsaw.ir import Attr, ReferenceKvCache
from fretsaw.ir.cache_policy import WindowPolicy
from fretsaw.ir.ops.attention import attend
from fretsaw.ir.ops.cache import _attention
from fretsaw.ir.planes import Plane

LAYERS, HEADS, PAGE = 2, 2, 4
MARK = Plane("mark", "i32", (2,), fill=-7)
LOOSE = Plane("loose", "f16", (1,))


@dataclass
class Row:
    """The naive model of one row: a list of slots, and a mark for every page, None for a new one."""

    slots: list[tuple[float, float, int]] = field(default_factory=list)  # key, value, position
    marks: list[int] = field(default_factory=list)

    def fit(self) -> None:
        pages = -(-len(self.slots) // PAGE)
        self.marks = self.marks[:pages] + [-7] * (pages - len(self.marks))

    def retain(self, slots: list[int]) -> None:
        old, marks = len(self.slots), self.marks
        self.marks = []
        for at in range(0, len(slots), PAGE):
            mine, first = slots[at : at + PAGE], slots[at]
            page = [i for i in range(first, first + PAGE) if i < old]
            self.marks.append(marks[first // PAGE] if first % PAGE == 0 and mine == page else -7)
        self.slots = [self.slots[i] for i in slots]


@dataclass
class Naive:
    rows: dict[tuple[int, int, int], Row]
    seen: list[int]


def check(cache: ReferenceKvCache, naive: Naive) -> None:
    floats = 0
    for (layer, seq, head), row in naive.rows.items():
        lens = cache.lens(layer, seq)
        assert (lens[head] if lens else 0) == len(row.slots)
        if not lens:
            continue
        floats += 5 * len(row.slots)
        k, v, positions = cache.row(layer, seq, head)
        assert k.shape == (len(row.slots), 3) and v.shape == (len(row.slots), 2)
        assert [(float(a[0]), float(b[0]), int(p)) for a, b, p in zip(k, v, positions, strict=True)] == row.slots
        marks = cache.plane("mark", layer, seq, head)
        assert marks.shape == (len(row.marks), 2) and marks[:, 1].tolist() == row.marks
        assert len(cache.plane("loose", layer, seq, head)) == len(row.marks)
    assert cache.nbytes == 4 * floats


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_any_history_is_that_of_lists(data: st.DataObject) -> None:
    sequences = 2
    cache = ReferenceKvCache(LAYERS, sequences, [MARK, LOOSE], PAGE)
    keys = [(la, s, h) for la in range(LAYERS) for s in range(sequences) for h in range(HEADS)]
    naive = Naive({key: Row() for key in keys}, [0] * sequences)
    number = 0
    for _ in range(data.draw(st.integers(1, 12))):
        match data.draw(st.sampled_from(("step", "step", "retain", "mark", "keep"))):
            case "step":
                counts = [data.draw(st.integers(0, 7)) for _ in range(sequences)]
                total = sum(counts)
                cache.begin_step(counts)
                assert cache.seen == tuple(naive.seen)
                for layer in range(LAYERS):
                    k = np.arange(number, number + total * HEADS, dtype=np.float32).reshape(total, HEADS, 1)
                    number += total * HEADS
                    cache.append(layer, np.repeat(k, 3, -1), np.repeat(-k, 2, -1))
                    for seq, start in enumerate(np.cumsum([0, *counts])[:-1]):
                        for head in range(HEADS):
                            row = naive.rows[layer, seq, head]
                            for i in range(counts[seq]):
                                word = float(k[start + i, head, 0])
                                row.slots.append((word, -word, naive.seen[seq] + i))
                            row.fit()
                naive.seen = [a + b for a, b in zip(naive.seen, counts, strict=True)]
            case "retain":
                key = data.draw(st.sampled_from(keys))
                row = naive.rows[key]
                if row.slots:
                    slots = sorted(data.draw(st.sets(st.integers(0, len(row.slots) - 1))))
                    cache.retain(*key, slots)
                    row.retain(slots)
            case "mark":
                key = data.draw(st.sampled_from(keys))
                row = naive.rows[key]
                if row.marks:
                    page, mark = data.draw(st.integers(0, len(row.marks) - 1)), data.draw(st.integers(0, 99))
                    cache.plane("mark", *key)[page] = mark
                    row.marks[page] = mark
            case _:
                tokens = data.draw(st.integers(0, 12))
                cache.keep(tokens)
                naive.seen = [min(n, tokens) for n in naive.seen]
                for row in naive.rows.values():
                    row.slots = [slot for slot in row.slots if slot[2] < tokens]
                    row.fit()
        check(cache, naive)


def test_heads_that_differ_are_read_one_by_one() -> None:
    cache = ReferenceKvCache(1)
    cache.begin_step([3])
    cache.append(0, np.ones((3, 2, 1)), np.ones((3, 2, 1)))
    assert cache.read(0, 0)[0].shape == (3, 2, 1)
    cache.retain(0, 0, 1, [0, 2])
    assert cache.lens(0, 0) == [3, 2] and cache.row(0, 0, 1)[2].tolist() == [0, 2]
    with pytest.raises(AssertionError, match="heads hold different tokens"):
        cache.read(0, 0)


def test_a_page_without_a_fill_shows_when_it_is_read() -> None:
    cache = ReferenceKvCache(1, 1, [LOOSE, Plane("n", "i8", (3,))])
    cache.begin_step([1])
    cache.append(0, np.ones((1, 1, 1)), np.ones((1, 1, 1)))
    assert np.isnan(cache.plane("loose", 0, 0, 0)).all() and (cache.plane("n", 0, 0, 0) == -128).all()


def pages_held(position: int, seen: int, sinks: int, window: int, page: int) -> bool:
    """A page goes once none of its tokens is among the first ``sinks`` or the last ``window`` of those seen."""
    first = position // page * page
    return any(i < sinks or i >= seen - window for i in range(first, first + page))


@given(st.integers(0, 20), st.integers(1, 20), st.integers(1, 8), st.integers(0, 80))
def test_a_window_drops_whole_pages_at_the_ends_of_steps(sinks: int, window: int, page: int, seen: int) -> None:
    policy = WindowPolicy(sinks, window, page)
    positions = np.arange(100)
    held = policy.holds(positions, seen)
    assert held.tolist() == [p < seen and pages_held(p, seen, sinks, window, page) for p in range(100)]
    end = policy.step_end(seen)
    assert end > seen
    for tokens in range(seen, end):  # nothing is dropped before it
        assert (policy.holds(positions, tokens)[:seen] == held[:seen]).all()
    assert not policy.holds(np.arange(end), end).all()
    most = held.sum() + end - seen
    assert most <= policy.bound(end) <= end


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_attention_under_a_window_does_not_depend_on_the_steps(data: st.DataObject) -> None:
    sinks, window, page = (data.draw(st.integers(low, 9)) for low in (0, 1, 1))
    count = data.draw(st.integers(1, 40))
    rng = np.random.default_rng(count)
    q, k, v = (rng.standard_normal((count, heads, 4)) for heads in (4, 2, 2))
    attrs: dict[str, Attr] = {"layer": 0, "scale": 0.5, "value_size": 4}
    cache, done = ReferenceKvCache(1, page=page), 0
    parts: list[np.ndarray] = []
    cache.policies[0] = WindowPolicy(sinks, window, page)
    while done < count:
        step = slice(done, done + data.draw(st.integers(1, count - done)))
        cache.begin_step([step.stop - step.start])
        cache.append(0, k[step], v[step])
        parts += _attention([cache, q[step]], attrs)
        done = step.stop
    for i in range(count):
        held = [p for p in range(i) if pages_held(p, i, sinks, window, page)] + [i]
        want = attend(q[i : i + 1], k[held], v[held], None, np.array([len(held) - 1]), attrs)
        # f64, and at most 40 keys: sums in another order differ by a few eps.
        assert np.abs(np.concatenate(parts)[i] - want[0]).max() < 64 * np.finfo(np.float64).eps
    cache.begin_step([])
    left = [p for p in range(count) if pages_held(p, count, sinks, window, page)]
    assert cache.row(0, 0, 1)[2].tolist() == left and cache.seen == (count,)
