"""The target has a kernel for every spec that a plan can hold."""

from __future__ import annotations

import importlib
import pkgutil

from fretsaw.backends.program import specs
from fretsaw.backends.program.specs.base import Spec
from fretsaw.backends.program.specs.select import OPS
from fretsaw.backends.tvm.builders import select
from fretsaw.backends.tvm.registry import KERNELS


def test_every_spec_has_a_kernel() -> None:
    for module in pkgutil.iter_modules(specs.__path__, specs.__name__ + "."):
        importlib.import_module(module.name)
    assert set(Spec.__subclasses__()) == set(KERNELS)


def test_every_selector_has_a_kernel() -> None:
    assert set(select.OPS) == OPS
