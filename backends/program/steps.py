"""What a plan is made of: packed tensors and kernel launches. A target makes kernels of the specs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from fretsaw.backends.tensor import Tensor as Tensor
from fretsaw.ir import Value
from fretsaw.ir.cache_policy import CachePolicy
from fretsaw.ir.planes import Plane


class KernelSpec(Protocol):
    """A kernel family's frozen parameters; equal specs give one compiled function."""

    @property
    def name(self) -> str:
        """Stable identifier, unique per spec, usable as a symbol."""
        ...

    def __hash__(self) -> int: ...


@dataclass(frozen=True)
class CacheSlot:
    """One of the runtime's cache arguments: ``cu``, ``lens``, ``table``, or a plane of the pages by its name."""

    name: str


Arg = Value | Tensor | CacheSlot


@dataclass(frozen=True)
class Launch:
    """One call of one kernel.

    Args:
        spec: Which kernel.
        inputs: Buffers it reads, in the kernel's order (cache slots it writes included).
        outputs: Values it makes.
        scalars: i64 arguments after the inputs, e.g. the layer.
        writes: Cache slots it changes in place.
        covers: Names of the IR results this launch computes, for reports.
    """

    spec: KernelSpec
    inputs: tuple[Arg, ...]
    outputs: tuple[Value, ...]
    scalars: tuple[int, ...] = ()
    writes: tuple[str, ...] = ()
    covers: tuple[str, ...] = ()


@dataclass(frozen=True)
class Plan:
    """Launches in order, the tensors they read, and the planes they keep beside keys and values."""

    inputs: tuple[Value, ...]
    launches: tuple[Launch, ...]
    outputs: tuple[Value, ...]
    tensors: tuple[Tensor, ...]
    aliases: dict[Value, Value] = field(default_factory=dict)  # same memory under another shape
    planes: tuple[Plane, ...] = ()
    policy: CachePolicy | None = None  # what rows of the cache hold; None: everything

    @property
    def cached(self) -> bool:
        """The program reads a KV cache: it is a step of a decoder, not an encoder."""
        return any(isinstance(arg, CacheSlot) for launch in self.launches for arg in launch.inputs)

    def source(self, value: Value) -> Value:
        """The value whose memory ``value`` is, through reshapes."""
        while value in self.aliases:
            value = self.aliases[value]
        return value

    def text(self) -> str:
        """One line per launch, for ``inspect`` and tests."""
        return "\n".join(
            f"{', '.join(f'%{v.name}' for v in x.outputs)} = {x.spec.name}({', '.join(_arg(a) for a in x.inputs)})"
            for x in self.launches
        )


def _arg(arg: Arg) -> str:
    return f"${arg.name}" if not isinstance(arg, Value) else f"%{arg.name}"
