"""What is kept between compiles: a kernel or graph that was made once from the same inputs is not made again.

`place.py` decides which folder may be trusted, `store.py` keeps the entries. Nothing here knows a target: an entry is
some bytes under the digest of everything that reaches them.
"""

from fretsaw.backends.kernel_cache.place import FOLDER_VARIABLE, Place, find_place
from fretsaw.backends.kernel_cache.store import GRAPHS, KERNELS, KernelCache, Kind, Usage

__all__ = ["FOLDER_VARIABLE", "GRAPHS", "KERNELS", "KernelCache", "Kind", "Place", "Usage", "find_place"]
