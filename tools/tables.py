"""Tables of ``fretsaw inspect``, from a manifest that was validated before."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table

from fretsaw.backends.artifact import Container
from fretsaw.tools.reporter import human_bytes

Manifest = Mapping[str, Any]  # JSON, whose shape validate_manifest has checked


def artifact_tables(container: Container, evidence: Mapping[str, Any] | None) -> Iterator[Table]:
    """Model, variants, sections, weights, memory, passes."""
    manifest: Manifest = container.manifest
    yield _model(manifest, container.header.file_bytes)
    yield _variants(manifest, container)
    yield _sections(container)
    yield _weights(manifest)
    yield _memory(manifest)
    yield _passes(manifest, evidence or {})


def _model(manifest: Manifest, size: int) -> Table:
    model, kv = manifest["model"], manifest["kv"]
    rows = [
        ("architecture", f"{model['architecture']} ({model['family']}, {model['kind']})"),
        ("context", f"{model['context']:,} tokens"),
        ("vocabulary", f"{model['vocab_size']:,}"),
        ("attention", f"{kv['layers']} layers, {kv['kv_heads']} key-value heads of {kv['key_size']}"),
        ("checkpoint", f"sha256 {model['checkpoint_sha256']}"),
        ("made by", ", ".join(f"{k} {v}" for k, v in manifest["producer"].items())),
        ("file", f"{human_bytes(size)}, format version {manifest['format_version']}"),
    ]
    return _table("model", ("", ""), rows)


def _variants(manifest: Manifest, container: Container) -> Table:
    rows = [
        (v["name"], human_bytes(container.sections[v["section"]].nbytes), " ".join(v["requires"]))
        for v in manifest["variants"]
    ]
    return _table("variants, best first", ("name", "code", "needs"), rows, right=(1,))


def _sections(container: Container) -> Table:
    rows = [(e.name, f"{e.offset:,}", f"{e.nbytes:,}", e.digest.hex()[:16]) for e in container.sections.values()]
    return _table("sections", ("name", "offset", "bytes", "sha256"), rows, right=(1, 2))


def _weights(manifest: Manifest) -> Table:
    count: dict[str, int] = defaultdict(int)
    size: dict[str, int] = defaultdict(int)
    for tensor in manifest["weights"]["tensors"]:
        count[tensor["dtype"]] += 1
        size[tensor["dtype"]] += tensor["bytes"]
    rows = [(dtype, str(count[dtype]), human_bytes(size[dtype])) for dtype in sorted(count)]
    return _table("weights", ("dtype", "tensors", "size"), rows, right=(1, 2))


def _memory(manifest: Manifest) -> Table:
    memory, model = manifest["memory"], manifest["model"]
    context = memory["kv_bytes_per_token"] * model["context"]
    rows = [
        ("weights (mapped)", human_bytes(memory["weights_bytes"])),
        ("KV cache, a token", human_bytes(memory["kv_bytes_per_token"])),
        (f"KV cache, {model['context']:,} tokens", human_bytes(context)),
        ("workspace", human_bytes(memory["workspace_bytes"])),
    ]
    return _table("memory plan", ("", "bytes"), rows, right=(1,))


def _passes(manifest: Manifest, evidence: Mapping[str, Any]) -> Table:
    checks = [entry.get("check", {}) for entry in evidence.get("passes", [])]
    rows = []
    for i, entry in enumerate(manifest["passes"]):
        check = _check_text(checks[i]) if i < len(checks) else ""
        rows.append(
            (entry.get("phase", ""), entry["name"], entry["keeps"], str(entry["hit"]), str(entry["declined"]), check)
        )
    columns = ("phase", "pass", "keeps", "sites", "declined", "check")
    return _table("passes", columns, rows, right=(3, 4))


def _check_text(check: Mapping[str, Any]) -> str:
    status = str(check.get("status", ""))
    numbers = ", ".join(f"{k} {v:.2g}" for k, v in check.items() if isinstance(v, float))
    return f"{status} ({numbers})" if numbers else status


def _table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> Table:
    table = Table(title=title, title_justify="left", show_header=any(columns))
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table
