"""What all kernel specs share: a name that equal parameters make equal."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields


@dataclass(frozen=True)
class Spec:
    """Base: a name made of the kind and a digest of the parameters, equal for equal specs."""

    @property
    def name(self) -> str:
        text = repr([(f.name, getattr(self, f.name)) for f in fields(self)])
        kind = type(self).__name__.removesuffix("Spec").lower()
        return f"{kind}_{hashlib.sha256(text.encode()).hexdigest()[:10]}"
