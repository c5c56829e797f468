"""A step program is planned, laid out and written without any target's library."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fretsaw.backends.program.assemble import assemble
from fretsaw.backends.program.options import ProgramOptions
from fretsaw.backends.program.plan import plan
from fretsaw.backends.program.serialize import to_bytes
from fretsaw.ir import to_text
from tests.backends.program.conftest import Packed

PROGRAM = """
import sys
for name in ("tvm", "tvm_ffi", "torch", "transformers", "ml_dtypes"):
    sys.modules[name] = None  # from now on importing it is an error
import importlib, pkgutil
from pathlib import Path
import fretsaw.backends.program as package
for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    importlib.import_module(found.name)
from fretsaw.backends.program.assemble import assemble
from fretsaw.backends.program.options import ProgramOptions
from fretsaw.backends.program.plan import plan
from fretsaw.backends.program.serialize import to_bytes
from fretsaw.ir import parse
graph = parse(Path(sys.argv[1]).read_text())
Path(sys.argv[2]).write_bytes(to_bytes(assemble({"step": plan(graph, ProgramOptions())})))
"""


@pytest.mark.parametrize("name", ["llama", "mixtral"])
def test_no_library_of_a_target_is_needed(name: str, packed: Packed, tmp_path: Path) -> None:
    graph = packed(name)[0]
    text, out = tmp_path / "graph.fir", tmp_path / "program.json"
    text.write_text(to_text(graph))
    subprocess.run([sys.executable, "-c", PROGRAM, str(text), str(out)], check=True, timeout=120)
    assert out.read_bytes() == to_bytes(assemble({"step": plan(graph, ProgramOptions())}))
