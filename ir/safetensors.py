"""Read safetensors headers: names, dtypes, shapes and offsets, every number checked before it is used.

Layout: eight bytes with the header's length (little endian), a JSON header, then the data of all tensors
without gap or overlap. Nothing is loaded here: each tensor becomes a :class:`FileData` that maps its bytes
when asked.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from fretsaw.ir.consts import FileData
from fretsaw.ir.errors import CaptureError
from fretsaw.ir.types import ITEMSIZE, DType

MAX_HEADER = 100_000_000  # bytes; the format's own limit
DTYPES: Mapping[str, DType] = {
    "F64": "f64", "F32": "f32", "F16": "f16", "BF16": "bf16", "I64": "i64", "I32": "i32",
    "I8": "i8", "U8": "u8", "BOOL": "bool",
}  # fmt: skip
COPY_AGAIN = "the file is damaged or was cut while copying: fetch it again"


def read_safetensors(path: Path) -> dict[str, FileData]:
    """Tensors of one file by name, in order of their offsets.

    Raises:
        CaptureError: the file is cut, its header is broken, or tensors overlap, leave holes or have a dtype
        that
            Fretsaw does not know; the message has the file, the tensor and the numbers.
    """
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length, header = _read_header(path, size, file.read(8), file.read)
    except OSError as error:
        raise CaptureError(f"cannot read {path.name}: {error.strerror}", where=str(path)) from None
    start = 8 + length
    found = [_tensor(path, name, entry, start, size) for name, entry in header.items() if name != "__metadata__"]
    found.sort(key=lambda item: (item[1].offset, item[1].nbytes))
    _check_tiling(path, found, start, size)
    return dict(found)


def _read_header(path: Path, size: int, prefix: bytes, read: object) -> tuple[int, dict[str, object]]:
    if len(prefix) < 8:
        raise _bad(path, f"the file has {size} bytes, too few for a header", COPY_AGAIN)
    length = int.from_bytes(prefix, "little")
    if length > min(MAX_HEADER, size - 8):
        raise _bad(path, f"the header is said to have {length} bytes, the file has {size}", COPY_AGAIN)
    assert callable(read)
    try:
        header = json.loads(read(length).decode("utf-8"), object_pairs_hook=_no_duplicates)
    except (ValueError, RecursionError) as error:
        raise _bad(path, f"the header is not valid JSON: {error}", COPY_AGAIN) from None
    if not isinstance(header, dict):
        raise _bad(path, "the header is not a JSON object", COPY_AGAIN)
    return length, header


def _no_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    out = dict(pairs)
    if len(out) != len(pairs):
        names = [k for k, _ in pairs]
        raise ValueError(f"the name {next(n for n in names if names.count(n) > 1)!r} occurs twice")
    return out


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 62


def _tensor(path: Path, name: str, entry: object, start: int, size: int) -> tuple[str, FileData]:
    """One checked entry of the header."""
    if not isinstance(entry, dict):
        raise _bad(path, f"tensor {name}: its entry is not an object", COPY_AGAIN)
    dtype, shape, offsets = entry.get("dtype"), entry.get("shape"), entry.get("data_offsets")
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise _bad(
            path, f"tensor {name}: dtype {dtype} is not supported",
            f"convert the checkpoint to one of {', '.join(DTYPES)}",
        )  # fmt: skip
    if not isinstance(shape, list) or not all(_is_size(d) for d in shape):
        raise _bad(path, f"tensor {name}: shape {shape} is not a list of sizes", COPY_AGAIN)
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(_is_size(o) for o in offsets):
        raise _bad(path, f"tensor {name}: data_offsets {offsets} are not two sizes", COPY_AGAIN)
    begin, end = offsets
    if begin > end or start + end > size:
        raise _bad(
            path,
            f"tensor {name}: data at bytes {start + begin} to {start + end}, the file has {size}",
            COPY_AGAIN,
        )
    want = ITEMSIZE[DTYPES[dtype]]
    for dim in shape:
        want *= dim
    if end - begin != want:
        raise _bad(path, f"tensor {name}: {dtype} {shape} needs {want} bytes, has {end - begin}", COPY_AGAIN)
    return name, FileData(path, start + begin, want, DTYPES[dtype], tuple(shape))


def _check_tiling(path: Path, found: list[tuple[str, FileData]], start: int, size: int) -> None:
    """The data section is covered exactly: no overlap, no hole, nothing behind the last tensor."""
    at, last = start, "the header"
    for name, data in found:
        if data.offset < at:
            raise _bad(path, f"tensors {last} and {name} overlap at byte {data.offset}", COPY_AGAIN)
        if data.offset > at:
            raise _bad(path, f"bytes {at} to {data.offset} before tensor {name} belong to no tensor", COPY_AGAIN)
        at, last = data.offset + data.nbytes, name
    if at != size:
        raise _bad(path, f"the tensors end at byte {at}, the file has {size}", COPY_AGAIN)


def _bad(path: Path, what: str, hint: str) -> CaptureError:
    return CaptureError(f"{path.name}: {what}", where=str(path), hint=hint)
