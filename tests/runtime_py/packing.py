"""A minimal writer of containers, from docs/artifact.md alone: the second opinion on the format.

It shares no code with the compiler's writer, so the reader is not tested against its own sibling.
"""

from __future__ import annotations

import hashlib
import json
import struct
from pathlib import Path


def pack(manifest: dict[str, object], sections: dict[str, bytes]) -> bytes:
    """The bytes of an artifact."""
    raw = json.dumps(manifest).encode()
    table_offset = _align(128 + len(raw))
    at = table_offset + 128 * len(sections)
    table, body = b"", b""
    for name, data in sections.items():
        pad = _align(at) - at
        table += struct.pack("<64sQQ32s16x", name.encode(), at + pad, len(data), hashlib.sha256(data).digest())
        body += bytes(pad) + data
        at += pad + len(data)
    head = struct.pack("<8sIIQQQQII", b"FRETSAW\0", 2, 2, at, 128, len(raw), table_offset, len(sections), 0)
    head += hashlib.sha256(raw + table).digest() + bytes(8)
    head += hashlib.sha256(head).digest()
    return head + raw + bytes(table_offset - 128 - len(raw)) + table + body


def write(path: Path, manifest: dict[str, object], sections: dict[str, bytes]) -> Path:
    """Write an artifact and return its path."""
    path.write_bytes(pack(manifest, sections))
    return path


def _align(value: int) -> int:
    return -(-value // 64) * 64
