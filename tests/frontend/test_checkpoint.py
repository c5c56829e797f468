"""Checkpoint directories: what is read, and one clear error for each thing that can be wrong."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from fretsaw.frontend.capture import capture
from fretsaw.frontend.checkpoint import load_checkpoint
from fretsaw.ir import to_text
from fretsaw.ir.errors import CaptureError
from tests.families import save


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("checkpoint")
    save("llama", path)
    return path


@pytest.fixture
def copy(original: Path, tmp_path: Path) -> Path:
    shutil.copytree(original, tmp_path / "model")
    return tmp_path / "model"


def change_config(path: Path, **changes: object) -> None:
    config = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(config | changes))


def change_tensors(path: Path, change: Callable[[dict[str, np.ndarray]], object]) -> None:
    tensors = load_file(path / "model.safetensors")
    change(tensors)
    save_file(tensors, path / "model.safetensors")


def refuse(path: Path, *parts: str) -> CaptureError:
    with pytest.raises(CaptureError) as caught:
        capture(load_checkpoint(path))
    for part in parts:
        assert part in str(caught.value)
    return caught.value


def test_reads_special_tokens_context_and_template(copy: Path) -> None:
    (copy / "generation_config.json").write_text('{"eos_token_id": [2, 7], "bos_token_id": 1}')
    (copy / "tokenizer_config.json").write_text(
        json.dumps({"bos_token": {"content": "<s>"}, "eos_token": "</s>", "chat_template": "from the tokenizer"})
    )
    (copy / "tokenizer.json").write_bytes(b"{}")
    found = load_checkpoint(copy)
    assert (found.architecture, found.family, found.kind) == ("LlamaForCausalLM", "llama", "decoder")
    assert found.eos_token_ids == (2, 7) and found.bos_token_id == 1 and found.pad_token_id == 0
    assert (found.bos_token, found.eos_token, found.context) == ("<s>", "</s>", 128)
    assert found.chat_template == "from the tokenizer" and found.tokenizer_json == b"{}"
    (copy / "chat_template.jinja").write_text("from the file")
    again = load_checkpoint(copy)
    assert again.chat_template == "from the file" and again.digest != found.digest
    assert load_checkpoint(copy).digest == again.digest


def test_the_default_of_several_templates(copy: Path) -> None:
    templates = [{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]
    (copy / "tokenizer_config.json").write_text(json.dumps({"chat_template": templates}))
    assert load_checkpoint(copy).chat_template == "d"


def test_no_directory(tmp_path: Path) -> None:
    refuse(tmp_path / "none", "is not a directory", "config.json")


def test_config_missing(copy: Path) -> None:
    (copy / "config.json").unlink()
    refuse(copy, "config.json is missing", "not a Hugging Face model directory")


@pytest.mark.parametrize("text", ["", "{", "[1]", "\ud800".encode("utf-8", "surrogatepass").decode("latin1")])
def test_config_broken(text: str, copy: Path) -> None:
    (copy / "config.json").write_text(text)
    refuse(copy, "config.json is not", str(copy / "config.json"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": None}, "config.json has no model_type"),
        ({"model_type": "mamba"}, "model type 'mamba' is not supported"),
        (
            {"architectures": ["LlamaForTokenClassification"]},
            "architecture LlamaForTokenClassification is not supp",
        ),
        ({"auto_map": {"AutoModel": "modeling.Evil"}}, "Python code from the checkpoint (auto_map)"),
        ({"quantization_config": {"quant_method": "mxfp4"}}, "the checkpoint is quantized (mxfp4)"),
        ({"max_position_embeddings": "many"}, "max_position_embeddings must be a positive integer"),
        ({"num_attention_heads": "four"}, "transformers cannot build LlamaForCausalLM"),
        ({"hidden_act": "no_such_function"}, "transformers cannot build LlamaForCausalLM"),
        ({"hidden_size": 64}, "the configuration asks for"),
        ({"num_hidden_layers": 3}, "tensor model.layers.2."),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type 'relative_key' is not supported"),
        ({"use_bidirectional_attention": True}, "bidirectional attention is not supported"),
        ({"rope_parameters": {"rope_type": "who", "rope_theta": 1.0}}, "who"),
    ],
)
def test_config_refused(changes: dict[str, object], message: str, copy: Path) -> None:
    change_config(copy, **changes)
    error = refuse(copy, message)
    assert str(copy) in error.where


def test_pickles_are_never_loaded(copy: Path) -> None:
    (copy / "model.safetensors").rename(copy / "pytorch_model.bin")
    refuse(copy, "pickle (pytorch_model.bin)", "save the checkpoint as safetensors")


def test_no_weights(copy: Path) -> None:
    (copy / "model.safetensors").unlink()
    refuse(copy, "there is neither model.safetensors nor model.safetensors.index.json")


def test_truncated_weights(copy: Path) -> None:
    path = copy / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    refuse(copy, "model.safetensors: tensor ", "data at bytes", "fetch it again")


def test_missing_tensor(copy: Path) -> None:
    change_tensors(copy, lambda t: t.pop("model.layers.1.mlp.up_proj.weight"))
    refuse(copy, "tensor model.layers.1.mlp.up_proj.weight is missing", "[80, 48]")


def test_wrong_shape(copy: Path) -> None:
    change_tensors(copy, lambda t: t.update({"model.norm.weight": np.ones(47, np.float32)}))
    refuse(copy, "tensor model.norm.weight has shape [47], the configuration asks for [48]")


def test_integer_weights(copy: Path) -> None:
    change_tensors(copy, lambda t: t.update({"model.norm.weight": np.ones(48, np.int8)}))
    refuse(copy, "tensor model.norm.weight has dtype i8; weights must be f64, f32, f16 or bf16")


def test_index(copy: Path) -> None:
    tensors = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").rename(copy / "a.safetensors")
    index = copy / "model.safetensors.index.json"

    def write(weight_map: object) -> None:
        index.write_text(json.dumps({"weight_map": weight_map}))

    write(dict.fromkeys(tensors, "a.safetensors"))
    assert set(load_checkpoint(copy).tensors) == set(tensors)
    write(3)
    refuse(copy, "has no weight_map")
    write(dict.fromkeys(tensors, "../a.safetensors"))
    refuse(copy, "names '../a.safetensors', which is no file of the directory")
    write(dict.fromkeys(tensors, "a.safetensors") | {"ghost": "a.safetensors"})
    refuse(copy, "tensor ghost is not in a.safetensors")
    save_file({"lm_head.weight": tensors["lm_head.weight"]}, copy / "b.safetensors")
    write(dict.fromkeys(tensors, "a.safetensors") | {"lm_head.weight": "b.safetensors"})
    refuse(copy, "tensor lm_head.weight is in a.safetensors and in b.safetensors")


def test_tied_tensors_must_agree(copy: Path) -> None:
    change_config(copy, tie_word_embeddings=True)
    refuse(copy, "model.embed_tokens.weight", "lm_head.weight", "the configuration ties them")
    change_tensors(copy, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"].copy()}))
    assert capture(load_checkpoint(copy)).count("embedding") == 1


def test_missing_expert(tmp_path: Path) -> None:
    save("mixtral", tmp_path)
    name = "model.layers.1.block_sparse_moe.experts.3.w1.weight"
    change_tensors(tmp_path, lambda t: t.pop(name))
    refuse(tmp_path, "tensor experts.3.w1.weight of model.layers.1.mlp.experts.gate_up_proj is missing")


def test_experts_with_an_unknown_activation(tmp_path: Path) -> None:
    save("mixtral", tmp_path)
    change_config(tmp_path, hidden_act="mish")
    refuse(tmp_path, "experts with activation 'mish' are not supported", "MixtralExperts")


def test_rope_scaling_in_the_old_form(tmp_path: Path) -> None:
    """Checkpoints from before transformers 5 say rope_theta and rope_scaling."""
    save("llama_llama3", tmp_path)
    want = to_text(capture(load_checkpoint(tmp_path)))
    config = json.loads((tmp_path / "config.json").read_text())
    rope = config.pop("rope_parameters")
    config |= {"rope_theta": rope.pop("rope_theta"), "rope_scaling": rope}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert to_text(capture(load_checkpoint(tmp_path))) == want


def test_unused_tensors_are_named(copy: Path) -> None:
    from fretsaw.frontend.capture import capture_all

    change_tensors(copy, lambda t: t.update({"model.rotary_emb.inv_freq": np.ones(4, np.float32)}))
    assert capture_all(load_checkpoint(copy)).unused == ("model.rotary_emb.inv_freq",)


def test_context_out_of_range(original: Path) -> None:
    with pytest.raises(CaptureError, match="context must be 1 to 128 tokens, is 129"):
        capture(load_checkpoint(original), context=129)
