"""The manifest's ``kv``: planes and policy. ``manifest_test.cc`` has the same cases for the C++ reader."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fretsaw.backends.artifact.kv import check_kv
from fretsaw.ir.errors import ArtifactError
from fretsaw.ir.planes import Plane, has_value
from fretsaw.ir.types import DType

PLANE = {"name": "scores", "dtype": "f32", "shape": [4, 4]}
WINDOW = {"name": "window", "sinks": 4, "window": 128}


def kv(*planes: object, policy: object = None, **sizes: int) -> dict[str, object]:
    return {"layers": 2, "kv_heads": 1, "dtype": "f32", "planes": list(planes), "policy": policy, **sizes}


def test_what_is_accepted() -> None:
    scratch = {"name": "n", "dtype": "i8", "shape": [3], "fill": -2, "copy": "fill"}
    check_kv(kv(PLANE, scratch, policy=WINDOW), {})
    check_kv(kv({**PLANE, "fill": None, "copy": None}, policy={"name": "full"}), {"chunk_align": 64, "dense": {}})
    for entry in (PLANE, scratch):
        assert Plane.of(entry).described() == entry
    assert Plane.of(PLANE).page_bytes == 64 and Plane.of(scratch).page_bytes == 3


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": ""}, "kv.planes[0].name must have 1 to 64 bytes, is ''"),
        ({"name": "é" * 33}, "kv.planes[0].name must have 1 to 64 bytes"),
        ({"dtype": "int8"}, "kv.planes[0].dtype must be one of f32, f16, bf16, i8, i32, i64, is 'int8'"),
        ({"shape": []}, "kv.planes[0].shape must be 1 to 7 positive numbers, is []"),
        ({"shape": [4, 0]}, "kv.planes[0].shape must be 1 to 7 positive numbers, is [4, 0]"),
        ({"shape": [1] * 8}, "kv.planes[0].shape must be 1 to 7 positive numbers"),
        ({"shape": [1 << 40] * 3}, "kv.planes[0]: a page of 'scores' takes over 1 TiB"),
        ({"shape": [1 << 38]}, "kv: a page of every layer and head takes over 1 TiB"),
        ({"fill": 0.1}, "kv.planes[0].fill must be an exact f32, is 0.1"),
        ({"fill": 1e39}, "kv.planes[0].fill must be an exact f32"),
        ({"fill": 1e-46}, "kv.planes[0].fill must be an exact f32"),
        ({"fill": 10**400}, "kv.planes[0].fill must be an exact f32"),
        ({"fill": "0"}, "kv.planes[0].fill must be an exact f32, is '0'"),
        ({"fill": False}, "kv.planes[0].fill must be an exact f32, is False"),
        ({"dtype": "f16", "fill": 65505}, "kv.planes[0].fill must be an exact f16, is 65505"),
        ({"dtype": "bf16", "fill": 257}, "kv.planes[0].fill must be an exact bf16, is 257"),
        ({"dtype": "i8", "fill": 128}, "kv.planes[0].fill must be an exact i8, is 128"),
        ({"dtype": "i32", "fill": 0.5}, "kv.planes[0].fill must be an exact i32, is 0.5"),
        ({"copy": "share", "fill": 0}, "kv.planes[0].copy must be one of page, fill, is 'share'"),
        ({"copy": "fill"}, "kv.planes[0].copy is fill, and there is no fill"),
    ],
)
def test_planes_that_are_refused(change: dict[str, object], words: str) -> None:
    with pytest.raises(ArtifactError) as refused:
        check_kv(kv({**PLANE, **change}), {})
    assert words in refused.value.what


def test_lists_that_are_refused() -> None:
    for planes, words in (
        ([], "kv.planes has 0 entries, 1 to 64 are possible"),
        ([{**PLANE, "name": f"p{i}"} for i in range(65)], "kv.planes has 65 entries"),
        ([PLANE, PLANE], "kv.planes[1] is a second plane 'scores'"),
    ):
        with pytest.raises(ArtifactError) as refused:
            check_kv(kv(*planes), {})
        assert words in refused.value.what


@pytest.mark.parametrize(
    ("policy", "program", "words"),
    [
        (1, {}, "kv.policy must be an object, is 1"),
        ({}, {}, "kv.policy.name must be one of full, window, is None"),
        ({"name": "lru"}, {}, "kv.policy.name must be one of full, window, is 'lru'"),
        ({"name": "window", "sinks": 0}, {}, "kv.policy.window must be from 1 to 2147483647, is None"),
        ({**WINDOW, "sinks": -1}, {}, "kv.policy.sinks must be from 0 to 2147483647, is -1"),
        ({**WINDOW, "window": 0}, {}, "kv.policy.window must be from 1 to 2147483647, is 0"),
        ({**WINDOW, "window": True}, {}, "kv.policy.window must be from 1 to 2147483647, is True"),
        (WINDOW, {"whole_prompts": True}, "slots are evicted, and the program has chunk_align, whole_prompts or dense"),
        (WINDOW, {"chunk_align": 64}, "slots are evicted"),
        (WINDOW, {"dense": {"entry": "d", "until": 1}}, "slots are evicted"),
    ],
)
def test_policies_that_are_refused(policy: object, program: dict[str, object], words: str) -> None:
    with pytest.raises(ArtifactError) as refused:
        check_kv(kv(PLANE, policy=policy), program)
    assert words in refused.value.what


@given(dtype=st.sampled_from(("f16", "bf16")), bits=st.integers(0, 2**16 - 1))
def test_every_value_of_a_narrow_dtype_is_one(dtype: DType, bits: int) -> None:
    value = np.uint16(bits).view(np.float16) if dtype == "f16" else np.uint32(bits << 16).view(np.float32)
    assert has_value(dtype, float(value)) == bool(np.isfinite(value))
