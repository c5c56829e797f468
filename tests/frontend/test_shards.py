"""An index of shards comes from outside: it names files of its own folder and no others."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from fretsaw.frontend.checkpoint import load_checkpoint
from fretsaw.ir.errors import CaptureError
from tests.families import save


@pytest.mark.parametrize(
    "shard", ["../outside.safetensors", "inner/weights.safetensors", "{folder}/outside.safetensors"]
)
def test_files_elsewhere_are_refused_though_they_exist(shard: str, tmp_path: Path) -> None:
    model = tmp_path / "model"
    save("llama", model)
    shard = shard.format(folder=tmp_path)
    tensors = load_file(model / "model.safetensors")
    (model / "inner").mkdir()
    os.replace(model / "model.safetensors", model / shard)
    (model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": dict.fromkeys(tensors, shard)}))
    with pytest.raises(CaptureError, match="which is no file of the directory") as caught:
        load_checkpoint(model)
    assert repr(shard) in caught.value.what
