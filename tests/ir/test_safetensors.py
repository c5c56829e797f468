"""The safetensors reader: the safetensors package's tensors, and a message for every kind of damage."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from fretsaw.ir.errors import CaptureError
from fretsaw.ir.safetensors import read_safetensors


def write(path: Path, header: object, data: bytes = b"", length: int | None = None) -> Path:
    """A file with this header (text as it is, else JSON) and data."""
    raw = header.encode() if isinstance(header, str) else json.dumps(header).encode()
    path.write_bytes((len(raw) if length is None else length).to_bytes(8, "little") + raw + data)
    return path


def entry(begin: int, end: int, shape: list[int] | None = None, dtype: str = "F32") -> dict[str, object]:
    return {
        "dtype": dtype,
        "shape": [(end - begin) // 4] if shape is None else shape,
        "data_offsets": [begin, end],
    }


def test_reads_what_the_package_wrote(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {
        "a": rng.standard_normal((3, 5)).astype(np.float32), "b": rng.integers(0, 9, (2,)), "empty":
        np.zeros((0, 4)), "half": rng.standard_normal((7,)).astype(np.float16), "flag": np.array([True,
        False]), "one": np.asarray(3.5),
    }  # fmt: skip
    save_file(arrays, tmp_path / "m.safetensors", metadata={"format": "np"})
    found = read_safetensors(tmp_path / "m.safetensors")
    assert set(found) == set(arrays)
    for name, array in arrays.items():
        assert found[name].shape == array.shape
        if array.size:
            assert np.array_equal(found[name].load(), array)


@pytest.mark.parametrize(
    ("header", "data", "length", "message"),
    [
        ({}, b"", 1 << 40, "the header is said to have 1099511627776 bytes, the file has 10"),
        ("{nonsense", b"", None, "the header is not valid JSON"),
        ("[]", b"", None, "the header is not a JSON object"),
        ('{"a": 1, "a": 2}', b"", None, "the name 'a' occurs twice"),
        ({"a": 3}, b"", None, "tensor a: its entry is not an object"),
        ({"a": entry(0, 8, dtype="F8_E4M3")}, bytes(8), None, "tensor a: dtype F8_E4M3 is not supported"),
        ({"a": entry(0, 8, shape=[-2])}, bytes(8), None, "tensor a: shape [-2] is not a list of sizes"),
        (
            {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0]}},
            bytes(8),
            None,
            "data_offsets [0] are not two",
        ),
        ({"a": entry(0, 8, shape=[3])}, bytes(8), None, "tensor a: F32 [3] needs 12 bytes, has 8"),
        ({"a": entry(0, 8), "b": entry(4, 12)}, bytes(12), None, "tensors a and b overlap at byte"),
        ({"a": entry(0, 8), "b": entry(12, 16)}, bytes(16), None, "before tensor b belong to no tensor"),
        ({"a": entry(0, 8)}, bytes(9), None, "the tensors end at byte"),
        ({"a": entry(0, 16)}, bytes(8), None, "tensor a: data at bytes"),
        ({"a": entry(8, 0, shape=[2])}, bytes(8), None, "tensor a: data at bytes"),
    ],
)
def test_damage_is_named(header: object, data: bytes, length: int | None, message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "m.safetensors", header, data, length)
    with pytest.raises(CaptureError) as caught:
        read_safetensors(path)
    assert message in caught.value.what and caught.value.what.startswith("m.safetensors: ")
    assert caught.value.where == str(path) and caught.value.hint


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.integers(0, 1 << 30))
def test_cut_at_any_length(cut: int, tmp_path: Path) -> None:
    whole = tmp_path / "whole.safetensors"
    if not whole.exists():
        save_file({"a": np.ones((4, 4), np.float32), "b": np.ones(3, np.float32)}, whole)
    data = whole.read_bytes()
    path = tmp_path / "cut.safetensors"
    path.write_bytes(data[: cut % len(data)])
    with pytest.raises(CaptureError):
        read_safetensors(path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 1 << 30), byte=st.integers(0, 255))
def test_any_changed_byte_is_refused_or_stays_inside_the_file(at: int, byte: int, tmp_path: Path) -> None:
    whole = tmp_path / "whole.safetensors"
    if not whole.exists():
        save_file({"a": np.ones((4, 4), np.float32), "b": np.ones(3, np.float32)}, whole)
    data = bytearray(whole.read_bytes())
    data[at % len(data)] = byte
    path = tmp_path / "changed.safetensors"
    path.write_bytes(bytes(data))
    try:
        found = read_safetensors(path)
    except CaptureError:
        return
    for tensor in found.values():
        assert tensor.offset > 8 and tensor.offset + tensor.nbytes <= len(data)
        tensor.load()
