"""What sentence-transformers' files say: how hidden states become one vector, and how long a text may be.

modules.json             the modules in order: Transformer, Pooling, Normalize
1_Pooling/config.json    which pooling
sentence_bert_config.json, max_seq_length
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fretsaw.ir.errors import CaptureError

Json = Mapping[str, object]
MODULES, SETTINGS = "modules.json", "sentence_bert_config.json"
KINDS = {
    "pooling_mode_cls_token": "first",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt",
    "pooling_mode_lasttoken": "last",
}
NAMES = {"cls": "first", "mean": "mean", "max": "max", "mean_sqrt_len_tokens": "mean_sqrt", "lasttoken": "last"}


@dataclass(frozen=True)
class Sentence:
    """From hidden states to embeddings.

    Args:
        pooling: A kind of the op ``pool``.
        normalize: Embeddings get length one.
        max_tokens: Longest text in tokens, special ones included; None: the model's context.
        files: What was read.
    """

    pooling: str
    normalize: bool
    max_tokens: int | None
    files: tuple[Path, ...]


def read_sentence(path: Path, read_json: Callable[[Path], Json], modules: object) -> Sentence | None:
    """What the files say; None when there is no ``modules.json``.

    Args:
        read_json: Reads a JSON object, an empty one where the file is missing.
        modules: Content of ``modules.json``, None when it is missing.

    Raises:
        CaptureError: a module or a pooling that is not supported, or a broken file.
    """
    if modules is None:
        return None
    where = str(path / MODULES)
    if not isinstance(modules, list) or not all(isinstance(m, dict) for m in modules):
        raise CaptureError(f"{MODULES} is not a list of modules", where=where)
    kinds = [str(m.get("type", "")).rsplit(".", 1)[-1] for m in modules]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise CaptureError(
            f"modules {', '.join(kinds) or 'none'} are not supported", where=where,
            hint="supported: Transformer, Pooling, and Normalize after them; without modules.json the artifact gives "
            "the hidden state of every token",
        )  # fmt: skip
    if modules[0].get("path"):
        raise CaptureError(
            f"the transformer lies in the folder {modules[0]['path']!r}", where=where, hint="compile that folder"
        )
    folder = str(modules[1].get("path", ""))
    if not folder or Path(folder).name != folder:
        raise CaptureError(f"the pooling's path {folder!r} is no folder of the checkpoint", where=where)
    config = path / folder / "config.json"
    settings = read_json(path / SETTINGS)
    files = [path / MODULES, config, *([path / SETTINGS] if settings else [])]
    pooling = _pooling(read_json(config), str(config))
    return Sentence(pooling, kinds[-1] == "Normalize", _max_tokens(settings, path), tuple(files))


def _pooling(config: Json, where: str) -> str:
    named = config.get("pooling_mode")
    if isinstance(named, str):
        chosen, known = [named], NAMES
    else:
        chosen, known = [name for name, on in config.items() if name.startswith("pooling_mode_") and on is True], KINDS
    if len(chosen) != 1 or chosen[0] not in known:
        raise CaptureError(
            f"pooling by {' and '.join(chosen) or 'nothing'} is not supported", where=where,
            hint=f"supported, one at a time: {', '.join(known)}",
        )  # fmt: skip
    return known[chosen[0]]


def _max_tokens(settings: Json, path: Path) -> int | None:
    length = settings.get("max_seq_length")
    if length is None:
        return None
    if not isinstance(length, int) or isinstance(length, bool) or length < 1:
        raise CaptureError(f"max_seq_length must be a positive integer, is {length!r}", where=str(path / SETTINGS))
    return length
