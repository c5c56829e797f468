"""The artifact ``model.fsaw``: one file, data only. The format is written down in ``docs/artifact.md``."""

from fretsaw.backends.artifact.container import Container, write_container
from fretsaw.backends.artifact.layout import SectionEntry
from fretsaw.backends.artifact.manifest import validate_manifest

__all__ = ["Container", "SectionEntry", "validate_manifest", "write_container"]
