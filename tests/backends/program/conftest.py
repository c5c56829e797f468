"""The tiny models of the tvm backend's tests."""

from tests.backends.tvm.conftest import Packed, packed

__all__ = ["Packed", "packed"]
