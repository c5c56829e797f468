"""What a backend makes of a graph: everything of an artifact that depends on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from fretsaw.backends.tensor import Tensor

NATIVE = "native"  # the loader of variants whose code the C++ runtime loads


@dataclass(frozen=True)
class Variant:
    """The code of a program for one kind of machine: the section ``code/NAME`` of the artifact.

    Args:
        name: Unique in the artifact.
        code: The section's bytes.
        requires: What the machine must have, by the names that the loader's detection uses.
        loader: Who runs the code. Every loader but the native one is itself a requirement, so that a reader which does
            not know it refuses the variant by name.
    """

    name: str
    code: bytes
    requires: tuple[str, ...] = ()
    loader: str = NATIVE

    def to_json(self) -> dict[str, object]:
        """Its entry in the manifest."""
        foreign = self.loader != NATIVE
        return {
            "name": self.name,
            "section": f"code/{self.name}",
            **({"loader": self.loader} if foreign else {}),
            "requires": [*([f"loader {self.loader}"] if foreign else []), *self.requires],
        }


@dataclass(frozen=True)
class Built:
    """A program, ready to be written.

    Args:
        variants: Best first: a runtime takes the first one that its machine can run.
        tensors: Weights, in the order in which the program takes them.
        cache: The manifest's ``kv``: layers, heads and sizes of the cache. Empty for an encoder.
        program: The manifest's ``program``: entry points and limits.
        memory: The manifest's ``memory``: sizes in bytes.
        launches: Steps of the program, for reports.
        detail: What else there is to report, in a few words.
        producer: Versions of what the backend used, by name.
        sections: More of the artifact, by name.
        verify: Holds the program against the whole manifest; raises ArtifactError where it contradicts it.
    """

    variants: Sequence[Variant]
    tensors: Sequence[Tensor]
    cache: Mapping[str, object]
    program: Mapping[str, object]
    memory: Mapping[str, int]
    launches: int
    detail: str = ""
    producer: Mapping[str, str] = field(default_factory=dict)
    sections: Sequence[tuple[str, bytes]] = ()
    verify: Callable[[Mapping[str, object]], None] = lambda manifest: None
