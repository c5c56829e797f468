"""Tables of ``fretsaw inspect``, from a manifest that was validated before."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from fretsaw.backends.artifact import Container
from fretsaw.tools.report.words import number, plain, size

Manifest = Mapping[str, Any]  # JSON, whose shape validate_manifest has checked
Rows = list[tuple[str, ...]]


def artifact_tables(container: Container) -> Iterator[Table]:
    """Model, variants, sections, weights, memory."""
    manifest: Manifest = container.manifest
    yield make_table("model", ("", ""), model_rows(manifest, container.header.file_bytes))
    yield make_table("variants, best first", ("name", "code", "needs"), variant_rows(manifest, container), right=(1,))
    yield _sections(container)
    yield _weights(manifest)
    yield make_table("memory plan", ("", "bytes"), memory_rows(manifest), right=(1,))


def model_rows(manifest: Manifest, file_bytes: int) -> Rows:
    """Name and value of what the artifact was made from, and of what it holds."""
    model = manifest["model"]
    return [
        ("architecture", f"{model['architecture']} ({model['family']}, {model['kind']})"),
        ("context", f"{number(model['context'])} tokens"),
        ("vocabulary", number(model["vocab_size"])),
        _output_row(manifest),
        *_sparse_rows(manifest["program"], model["context"]),
        ("checkpoint", f"sha256 {model['checkpoint_sha256']}"),
        *_backend_rows(manifest),
        ("made by", ", ".join(f"{k} {v}" for k, v in manifest["producer"].items())),
        ("file", f"{size(file_bytes)}, format version {number(manifest['format_version'])}"),
    ]


def _backend_rows(manifest: Manifest) -> Rows:
    """What built the artifact, as ``--backend`` takes it; nothing where the artifact does not say."""
    if "backend" not in manifest:
        return []
    options = manifest["backend"]["options"].items()
    said = ",".join(f"{k}={','.join(map(str, v)) if isinstance(v, list) else str(v)}" for k, v in options)
    return [("backend", ":".join(filter(None, [manifest["backend"]["name"], said])))]


def _output_row(manifest: Manifest) -> tuple[str, str]:
    """The cache of a decoder, or what an encoder gives."""
    if "kv" in manifest:
        kv = manifest["kv"]
        layers, heads, width = (number(kv[key]) for key in ("layers", "kv_heads", "key_size"))
        return "attention", f"{layers} layers, {heads} key-value heads of {width}"
    made = manifest["embedding"]
    width = number(made["width"])
    if made["pooling"] is None:
        return "output", f"{width} numbers per token"
    return "output", f"{width} numbers per text, pooling {made['pooling']}{', length 1' * made['normalize']}"


def _sparse_rows(program: Mapping[str, Any], context: int) -> Rows:
    """Which steps of a program with sparse attention are dense; nothing for any other program."""
    if program.get("chunk_align", 1) == 1:
        return []
    dense = program.get("dense", {"until": 0, "prompts": False, "single": False})
    if dense["until"] >= context:
        return [("dense steps", "all")]
    kinds = {f"up to {number(dense['until'])} tokens": dense["until"], "prompts": dense["prompts"],
             "decoding": dense["single"]}  # fmt: skip
    return [("dense steps", ", ".join(kind for kind, holds in kinds.items() if holds) or "none")]


def variant_rows(manifest: Manifest, container: Container) -> Rows:
    """Name, bytes of code and CPU features of each variant, best first."""
    return [
        (v["name"], size(container.sections[v["section"]].nbytes), " ".join(v["requires"]))
        for v in manifest["variants"]
    ]


def _sections(container: Container) -> Table:
    rows = [(e.name, f"{e.offset:,}", f"{e.nbytes:,}", e.digest.hex()[:16]) for e in container.sections.values()]
    return make_table("sections", ("name", "offset", "bytes", "sha256"), rows, right=(1, 2))


def _weights(manifest: Manifest) -> Table:
    count: dict[str, int] = defaultdict(int)
    held: dict[str, int] = defaultdict(int)
    for tensor in manifest["weights"]["tensors"]:
        count[tensor["dtype"]] += 1
        held[tensor["dtype"]] += tensor["bytes"]
    rows = [(dtype, str(count[dtype]), size(held[dtype])) for dtype in sorted(count)]
    return make_table("weights", ("dtype", "tensors", "size"), rows, right=(1, 2))


def memory_rows(manifest: Manifest) -> Rows:
    """Bytes of everything that is held while the model runs."""
    memory, model = manifest["memory"], manifest["model"]
    context = memory["kv_bytes_per_token"] * model["context"]
    return [
        ("weights (mapped)", size(memory["weights_bytes"])),
        ("KV cache, a token", size(memory["kv_bytes_per_token"]) + _storage(manifest)),
        (f"KV cache, {number(model['context'])} tokens", size(context)),
        ("workspace", size(memory["workspace_bytes"])),
    ]


def _storage(manifest: Manifest) -> str:
    """How the cache is stored, and what it would take in f32."""
    if "kv" not in manifest:
        return ""
    kv = manifest["kv"]
    wide = kv["layers"] * kv["kv_heads"] * (kv["key_size"] + kv["value_size"]) * 4
    return f" ({kv['dtype']})" if kv["dtype"] == "f32" else f" ({kv['dtype']}; {size(wide)} in f32)"


def make_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> Table:
    """A table of plain text: what looks like markup or moves the cursor is shown as it is spelled."""
    table = Table(title=Text(plain(title)), title_justify="left", show_header=any(columns))
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i in right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text("\n".join(map(plain, cell.split("\n")))) for cell in row))
    return table
