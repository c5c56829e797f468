"""Storage formats: bounds, fixed points, odd numbers; in constants, text, the verifier and the reference cache."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fretsaw.ir import (
    Const,
    FileData,
    Graph,
    HandleType,
    OpData,
    ReferenceKvCache,
    TensorType,
    Value,
    parse,
    run,
    to_text,
    verify,
)
from fretsaw.ir.errors import VerifyError
from fretsaw.ir.formats import FORMATS, Array, Format, Plane, register
from fretsaw.ir.types import FLOATS, ITEMSIZE, numpy_dtype

REAL = [f.name for f in FORMATS.values() if f.dtypes & FLOATS and f.name != "f64"]
LARGEST = float(np.finfo(np.float32).max)


def bound(name: str, x: Array) -> Array:
    """Half a unit in the last place of a format whose numbers ``x`` [R, E] are all in range, by element."""
    size = np.abs(x).astype(np.float64)
    if name == "f32":
        return np.zeros_like(size)
    if name == "f16":
        return np.maximum(size * 2.0**-11, 2.0**-25)
    if name == "bf16":
        return size * 2.0**-8
    return np.broadcast_to(0.5001 * size.max(-1, keepdims=True) / 127, size.shape)


def planes_equal(a: Mapping[str, Array], b: Mapping[str, Array]) -> bool:
    return a.keys() == b.keys() and all(a[k].tobytes() == b[k].tobytes() for k in a)


@pytest.mark.parametrize("name", REAL)
@given(seed=st.integers(0, 9999), exponent=st.integers(-20, 12))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_bounds_and_fixed_points(name: str, seed: int, exponent: int) -> None:
    """Within half a step; what is decoded encodes to the same bytes; planes are as declared."""
    x = np.ldexp(np.random.default_rng(seed).standard_normal((5, 12)), exponent).astype(np.float32)
    kept = FORMATS[name]
    planes = kept.encode(x)
    back = kept.decode(planes, x.shape)
    assert (np.abs(back.astype(np.float64) - x) <= bound(name, x)).all()
    assert planes_equal(kept.encode(back), planes)
    assert back.dtype == np.float32 and back.shape == x.shape
    for plane in kept.planes(x.shape):
        stored = np.dtype(np.uint16) if plane.dtype == "bf16" else numpy_dtype(plane.dtype)
        assert planes[plane.name].dtype == stored and planes[plane.name].shape == plane.shape
    assert kept.nbytes(x.shape) == sum(a.nbytes for a in planes.values())


@pytest.mark.parametrize(
    ("name", "want"),
    [
        ("f32", [np.nan, np.inf, -np.inf, -0.0, LARGEST]),
        ("f16", [np.nan, 65504, -65504, -0.0, 65504]),
        ("bf16", [np.nan, np.inf, -np.inf, -0.0, np.inf]),
    ],
)
def test_odd_numbers(name: str, want: list[float]) -> None:
    """NaN stays NaN, minus zero keeps its sign; what is beyond the largest f16 is clipped, beyond bf16 infinite."""
    x = np.array([[np.nan, np.inf, -np.inf, -0.0, LARGEST]], np.float32)
    got = FORMATS[name].rounded(x)
    np.testing.assert_array_equal(got, np.array([want], np.float32))
    assert np.signbit(got[0, 3])


def test_odd_vectors_in_int8() -> None:
    """Zeros and what is too small for a scale are zeros; NaN and infinity show in the whole vector, and in no other."""
    x = np.array([[0, 0], [1e-31, -1e-31], [np.nan, 1], [np.inf, 1], [2, -1]], np.float32)
    got = FORMATS["int8"].rounded(x)
    assert not got[:2].any() and np.isnan(got[2:4]).all()
    assert np.abs(got[4] - x[4]).max() <= 1 / 127
    assert FORMATS["int8"].rounded(np.zeros((0, 4), np.float32)).shape == (0, 4)


def test_sizes() -> None:
    assert {name: FORMATS[name].nbytes((3, 64)) for name in REAL} == {
        "f32": 768, "f16": 384, "bf16": 384, "int8": 3 * 68,
    }  # fmt: skip
    assert all(FORMATS[dtype].nbytes((2, 3)) == 6 * size for dtype, size in ITEMSIZE.items())


def test_a_name_is_registered_once() -> None:
    with pytest.raises(ValueError, match="f16 is registered twice"):
        register(FORMATS["f16"])


def bf16_file(tmp_path: Path, shape: tuple[int, ...]) -> Const:
    """A weight that a checkpoint has in bf16, as the frontend reads it."""
    bits = np.random.default_rng(0).integers(0x3F00, 0x3FFF, shape).astype(np.uint16)
    path = tmp_path / "w.bin"
    path.write_bytes(bits.tobytes())
    stored = Const(TensorType("bf16", shape), FileData(path, 0, bits.nbytes, "bf16", shape))
    return Const(TensorType("f32", shape), OpData("cast", (stored,), (("dtype", "f32"),)))


def test_a_constant_is_kept_as_its_data_is(tmp_path: Path) -> None:
    """Moves keep the format, arithmetic and mixing do not, vectors have their dtype's."""
    w = bf16_file(tmp_path, (4, 8))
    assert (w.format, w.nbytes, w.is_exact) == ("bf16", 64, True)
    two = TensorType("f32", (8, 8))
    assert Const(two, OpData("concat", (w, w), (("axis", 0),))).format == "bf16"
    assert Const(w.type, OpData("add", (w, w), ())).format == "f32"
    wide = Const.of(np.ones((4, 8), np.float32))
    assert Const(two, OpData("concat", (w, wide), (("axis", 0),))).format == "f32"
    assert Const(TensorType("f32", (32,)), OpData("reshape", (w,), (("shape", (32,)),))).format == "f32"


def test_a_constant_computes_with_what_its_format_holds(tmp_path: Path) -> None:
    w = bf16_file(tmp_path, (4, 8))
    byte = replace(w, format="int8")
    np.testing.assert_array_equal(byte.load(), FORMATS["int8"].rounded(w.load()))
    assert not np.array_equal(byte.load(), w.load()) and not byte.is_exact
    assert np.array_equal(replace(w, format="f32").load(), w.load())


TEXT = """
graph @g(%x: f32[2, 8]) -> (%y) {
  const %w: f32[4, 8] as f16
  %y: f32[2, 4] = linear(%x, %w)
}""".strip()


def test_text_round_trips(tmp_path: Path) -> None:
    graph = parse(TEXT, seed=1)
    assert to_text(graph) == TEXT
    (const,) = graph.consts.values()
    plain = parse(TEXT.replace(" as f16", ""), seed=1)
    x = np.ones((2, 8), np.float32)
    assert not np.array_equal(run(graph, {"x": x})[0], run(plain, {"x": x})[0])
    assert const.format == "f16"
    w = bf16_file(tmp_path, (4, 8))
    value = Value("w", w.type)
    for made in (w, replace(w, format="f32"), replace(w, format="int8")):
        whole = Graph("g", (), {value: made}, (), (value,))
        assert parse(to_text(whole), {"w": made}) == whole
        assert (" as bf16 = cast" in to_text(whole)) == (made.format == "bf16")


def test_the_verifier_knows_formats() -> None:
    value = Value("n", TensorType("i64", (2, 2)))
    numbers = Const.of(np.ones((2, 2), np.int64))
    for kept, words in (("f16", "cannot hold"), ("u5", "no such format")):
        with pytest.raises(VerifyError, match=words):
            verify(Graph("g", (), {value: replace(numbers, format=kept)}, (), (value,)))
    kv = Value("kv", HandleType("kv_cache", "u5"))
    with pytest.raises(VerifyError, match=r"no storage format u5.*invariant 12"):
        verify(Graph("g", (kv,), {}, (), ()))


CACHED = """
graph @g(%kv: handle<kv_cache, int8>, %x: f32[T, 2, 4]) -> (%y) {
  phase packed
  dim T in [1, 64]
  kv_append(%kv, %x, %x) {layer = 0}
  %y: f32[T, 2, 4] = cached_attention(%kv, %x) {layer = 0, scale = 1.0, value_size = 4}
}""".strip()


def test_the_reference_cache_keeps_its_format() -> None:
    graph = parse(CACHED)
    assert to_text(graph) == CACHED
    x = np.random.default_rng(1).standard_normal((3, 2, 4)).astype(np.float32)
    cache = ReferenceKvCache(1, format="int8")
    cache.begin_step([3])
    (got,) = run(graph, {"kv": cache, "x": x})
    np.testing.assert_array_equal(cache.read(0, 0)[0], FORMATS["int8"].rounded(x))
    plain = ReferenceKvCache(1)
    plain.begin_step([3])
    (want,) = run(parse(CACHED.replace(", int8", "")), {"kv": plain, "x": x})
    assert 0 < np.abs(got - want).max() < 0.05
    with pytest.raises(VerifyError, match=r"%kv is handle<kv_cache, int8>, the one given keeps f32"):
        run(graph, {"kv": plain, "x": x})


@pytest.fixture
def q8() -> Iterator[Format]:
    """A format of somebody else: four numbers share a scale that is a power of two."""

    def encode(x: Array) -> dict[str, Array]:
        groups = np.asarray(x, np.float32).reshape(*x.shape[:-1], -1, 4)
        _, exponent = np.frexp(np.abs(groups).max(-1))
        codes = np.rint(np.ldexp(groups, (6 - exponent)[..., None])).astype(np.int8)
        return {"codes": codes.reshape(x.shape), "exponents": exponent.astype(np.int32)}

    def decode(planes: Mapping[str, Array], shape: tuple[int, ...]) -> Array:
        codes = planes["codes"].astype(np.float32).reshape(*shape[:-1], -1, 4)
        exponents = planes["exponents"].astype(np.int32)
        return np.ldexp(codes, (exponents - 6)[..., None]).astype(np.float32).reshape(shape)

    def planes(shape: tuple[int, ...]) -> tuple[Plane, ...]:
        return Plane("codes", "i8", shape), Plane("exponents", "i32", (*shape[:-1], shape[-1] // 4))

    made = register(Format("q8", 8, 4, planes, encode, decode))
    yield made
    del FORMATS["q8"]


def test_one_registration_is_all_that_a_format_needs(q8: Format) -> None:
    text = TEXT.replace("f16", "q8")
    graph = parse(text, seed=1)
    verify(graph)
    assert to_text(graph) == text
    (const,) = graph.consts.values()
    assert const.nbytes == 4 * 8 + 4 * 2 * 4
    numbers = replace(const, format="f32").load()
    np.testing.assert_array_equal(const.load(), q8.rounded(numbers))
    assert 0 < np.abs(const.load() - numbers).max() <= np.abs(numbers).max() / 64
    x = np.random.default_rng(2).standard_normal((2, 8)).astype(np.float32)
    np.testing.assert_allclose(run(graph, {"x": x})[0], x @ const.load().T, rtol=1e-5, atol=1e-6)
    with pytest.raises(VerifyError, match="no such format"):
        verify(parse(text.replace("q8", "q9"), seed=1))
