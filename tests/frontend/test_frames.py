"""Whose a frame is: by the folders where torch and this package are installed, whatever words a path has."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, fx, nn

from fretsaw.frontend import frames, hooks
from fretsaw.frontend.capture import trace
from fretsaw.frontend.frames import called_at, is_model, raised_at
from fretsaw.frontend.import_aten.loc import location
from fretsaw.ir.errors import CaptureError

TORCH = Path(torch.__file__).parent
FRONTEND = Path(frames.__file__).parent
# Folders of a user, each with a word or a letter that paths should not be judged by.
ODD = ("torch/fretsaw", "fretsaw/frontend", "site-packages/torch", "a b", 'say "hi", line 3, in x', "modèle/модель")
MODEL = """import torch


class Model(torch.nn.Module):
    def forward(self, ids, positions):
        doubled = ids.float() * 2
        return self.choose(doubled)

    def choose(self, x):
        return x if x.sum() > 0 else -x
"""
CHOICE = MODEL.splitlines().index("        return x if x.sum() > 0 else -x") + 1
PRODUCT = MODEL.splitlines().index("        doubled = ids.float() * 2") + 1


def load(file: Path, text: str) -> nn.Module:
    """The model of a file that a user keeps in some folder."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("model_of_a_user", file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model = module.Model()
    assert isinstance(model, nn.Module)
    return model


@pytest.mark.parametrize("folder", ODD)
def test_a_tracing_error_names_the_users_file(tmp_path: Path, folder: str) -> None:
    model = load(tmp_path / folder / "model.py", MODEL)
    with pytest.raises(CaptureError, match="torch.export cannot trace the model") as caught:
        trace(model, 8)
    assert caught.value.where == f"model.py:{CHOICE}"


@pytest.mark.parametrize("folder", ODD)
def test_a_node_names_the_users_line(tmp_path: Path, folder: str) -> None:
    model = load(tmp_path / folder / "model.py", MODEL.replace("x if x.sum() > 0 else -x", "-x"))
    nodes = [n for n in trace(model, 8).graph.nodes if n.op == "call_function"]
    assert f"model.py:{PRODUCT}" in {location(n).source for n in nodes}
    assert all(location(n).source.startswith("model.py:") for n in nodes)


@pytest.mark.parametrize("folder", [TORCH, TORCH / "nn" / "modules", FRONTEND, FRONTEND / "import_aten"])
def test_the_packages_files_are_skipped(folder: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(folder)
    detour = folder / "x" / ".." / "f.py"
    assert not any(map(is_model, map(str, (folder / "f.py", link / "f.py", detour))))


def test_a_neighbour_of_a_package_is_the_models() -> None:
    for package in (TORCH, FRONTEND):
        assert is_model(str(package.parent / "f.py"))
        assert is_model(f"{package}_extra/f.py")  # begins with the same letters
        assert is_model(f"{package}.py")
    assert all(map(is_model, ("<string>", "<eval_with_key>.3", "model.py")))


def test_a_package_whose_files_are_links_to_a_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, package = tmp_path / "store" / "1f0c", tmp_path / "env" / "torch"
    store.mkdir(parents=True)
    package.mkdir(parents=True)
    (store / "f.py").touch()
    (package / "f.py").symlink_to(store / "f.py")
    monkeypatch.setattr(frames, "PACKAGES", (str(package),))
    assert not is_model(str(package / "f.py"))
    assert is_model(str(tmp_path / "env" / "f.py"))


def test_a_package_that_is_reached_by_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package, link = tmp_path / "real" / "fretsaw", tmp_path / "link"
    package.mkdir(parents=True)
    link.symlink_to(package.parent)
    monkeypatch.setattr(frames, "PACKAGES", (str(link / "fretsaw"),))
    assert not is_model(str(package / "f.py")) and not is_model(str(link / "fretsaw" / "f.py"))
    assert is_model(str(tmp_path / "fretsaw" / "f.py"))


def caught(fails: Callable[[], object]) -> Exception:
    try:
        fails()
    except Exception as error:
        return error
    raise AssertionError("it does not fail")


def test_errors_inside_torch_and_the_hooks_are_the_callers() -> None:
    here, x = Path(__file__).name, torch.zeros(3)
    line = sys._getframe().f_lineno + 1
    inside_torch = caught(lambda: nn.Linear(2, 2)(x))
    inside_hooks = caught(lambda: hooks._attention(nn.Identity(), x, x, x, None, strange=1))
    assert Path(traceback.extract_tb(inside_torch.__traceback__)[-1].filename).is_relative_to(TORCH)
    assert Path(traceback.extract_tb(inside_hooks.__traceback__)[-1].filename).is_relative_to(FRONTEND)
    assert raised_at(inside_torch) == f"{here}:{line}"
    assert raised_at(inside_hooks) == f"{here}:{line + 1}"
    assert raised_at(ValueError("never raised")) == ""


def stack(*frames: tuple[str, int, str]) -> str:
    """As torch stores it: without the blanks that it begins with."""
    lines = [traceback.FrameSummary(file, line, "forward", line=text) for file, line, text in frames]
    return "".join(traceback.StackSummary.from_list(lines).format()).strip()


@pytest.mark.parametrize("folder", ["/u/torch", '/u/a "b"', '/u/File "x", line 1, in y', "/u/été", "C d", "/u/it's"])
def test_stacks_are_read_whatever_their_paths(folder: str) -> None:
    own = (f"{folder}/model.py", 12, "y = self.lin(x)")
    torchs = (str(TORCH / "nn" / "modules" / "linear.py"), 134, "return F.linear(input)")
    assert called_at(stack(own)) == called_at(stack(own, torchs)) == called_at(stack(torchs, own)) == "model.py:12"
    assert called_at(stack(torchs)) == called_at("") == ""


def test_quoted_source_is_no_frame() -> None:
    quoted = ("/u/model.py", 3, 'File "/u/other.py", line 7, in forward')
    assert called_at(stack(quoted)) == "model.py:3"


def test_a_node_without_a_stack_has_no_line() -> None:
    graph = fx.Graph()
    assert location(graph.placeholder("x")).source == ""


def test_the_wrapper_is_no_part_of_the_model(tmp_path: Path) -> None:
    """Hooks and wrappers run inside the model's forward: what they do is told of the line that calls them."""

    class Wrapper(nn.Module):
        def forward(self, ids: Tensor, positions: Tensor) -> Tensor:
            q = ids.float()[:, None, :, None]  # [B, 1, S, 1]
            return hooks._attention(nn.Identity(), q, q, q, None)[0]  # the call

    line = 1 + next(n for n, text in enumerate(Path(__file__).read_text().splitlines()) if "# the call" in text)
    (node,) = [n for n in trace(Wrapper(), 8).graph.nodes if "fretsaw" in str(n.target)]
    assert location(node).source == f"{Path(__file__).name}:{line}"
