"""The manifest's ``kv``: planes of a page and the policy of rows, held to the same rules as in the runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod

from fretsaw.ir.errors import ArtifactError
from fretsaw.ir.planes import PLANE_DTYPES, has_value
from fretsaw.ir.types import ITEMSIZE, DType

KV_TYPES = ("f32", "f16", "int8")
MAX_PLANES, MAX_RANK = 64, 7
MAX_COLUMN = 1 << 40  # bytes of a page of every layer and head
MAX_TOKENS = 2**31 - 1  # of a policy's spans
POLICIES: Mapping[str, Mapping[str, int]] = {"full": {}, "window": {"sinks": 0, "window": 1}}  # least values


def check_kv(kv: Mapping[str, object], program: Mapping[str, object]) -> None:
    """Check what the schema cannot say.

    Raises:
        ArtifactError: the first rule that is broken.
    """
    if kv["dtype"] not in KV_TYPES:
        raise ArtifactError(f"manifest: kv.dtype must be one of {', '.join(KV_TYPES)}, is {kv['dtype']!r}")
    planes = kv["planes"]
    assert isinstance(planes, Sequence)  # the schema has been checked
    if not 1 <= len(planes) <= MAX_PLANES:
        raise ArtifactError(f"manifest: kv.planes has {len(planes)} entries, 1 to {MAX_PLANES} are possible")
    names: set[str] = set()
    page = 0
    for i, plane in enumerate(planes):
        page += _page_bytes(plane, f"kv.planes[{i}]")
        if plane["name"] in names:
            raise ArtifactError(f"manifest: kv.planes[{i}] is a second plane {plane['name']!r}")
        names.add(plane["name"])
    layers, heads = kv["layers"], kv["kv_heads"]
    assert isinstance(layers, int) and isinstance(heads, int)
    if layers * heads * page > MAX_COLUMN:
        raise ArtifactError("manifest: kv: a page of every layer and head takes over 1 TiB")
    if kv.get("policy") is not None:
        _check_policy(kv["policy"], program)


def _page_bytes(plane: Mapping[str, object], where: str) -> int:
    name, dtype, shape = plane["name"], plane["dtype"], plane["shape"]
    assert isinstance(name, str) and isinstance(shape, Sequence)
    if not name or len(name.encode()) > 64:
        raise ArtifactError(f"manifest: {where}.name must have 1 to 64 bytes, is {name!r}")
    known = next((d for d in PLANE_DTYPES if d == dtype), None)
    if known is None:
        raise ArtifactError(f"manifest: {where}.dtype must be one of {', '.join(PLANE_DTYPES)}, is {dtype!r}")
    if not 1 <= len(shape) <= MAX_RANK or min(shape) < 1:
        raise ArtifactError(f"manifest: {where}.shape must be 1 to {MAX_RANK} positive numbers, is {list(shape)}")
    nbytes = prod(shape) * ITEMSIZE[known]
    if nbytes > MAX_COLUMN:
        raise ArtifactError(f"manifest: {where}: a page of {name!r} takes over 1 TiB")
    _check_fill(plane, known, where)
    return nbytes


def _check_fill(plane: Mapping[str, object], dtype: DType, where: str) -> None:
    fill, copy = plane.get("fill"), plane.get("copy")
    if fill is not None and (isinstance(fill, bool) or not isinstance(fill, int | float) or not has_value(dtype, fill)):
        raise ArtifactError(f"manifest: {where}.fill must be an exact {dtype}, is {fill!r}")
    if copy not in (None, "page", "fill"):
        raise ArtifactError(f"manifest: {where}.copy must be one of page, fill, is {copy!r}")
    if copy == "fill" and fill is None:
        raise ArtifactError(f"manifest: {where}.copy is fill, and there is no fill")


def _check_policy(policy: object, program: Mapping[str, object]) -> None:
    if not isinstance(policy, Mapping):
        raise ArtifactError(f"manifest: kv.policy must be an object, is {policy!r}")
    name = policy.get("name")
    if not isinstance(name, str) or name not in POLICIES:
        raise ArtifactError(f"manifest: kv.policy.name must be one of {', '.join(POLICIES)}, is {name!r}")
    for key, least in POLICIES[name].items():
        value = policy.get(key)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= MAX_TOKENS:
            raise ArtifactError(f"manifest: kv.policy.{key} must be from {least} to {MAX_TOKENS}, is {value!r}")
    cut_anywhere = program.get("chunk_align", 1) == 1 and not program.get("whole_prompts") and not program.get("dense")
    if name != "full" and not cut_anywhere:
        raise ArtifactError(
            "manifest: kv.policy: slots are evicted, and the program has chunk_align, whole_prompts or dense"
        )
