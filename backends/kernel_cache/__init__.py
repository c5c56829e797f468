"""Compiled kernels, kept between compiles: a kernel that was compiled once with the same inputs is not compiled again.

`place.py` decides which folder may be trusted, `store.py` keeps the entries. Nothing here knows a target: an entry is
some bytes under the digest of everything that reaches them.
"""

from fretsaw.backends.kernel_cache.place import FOLDER_VARIABLE, Place, find_place
from fretsaw.backends.kernel_cache.store import KernelCache, Usage

__all__ = ["FOLDER_VARIABLE", "KernelCache", "Place", "Usage", "find_place"]
