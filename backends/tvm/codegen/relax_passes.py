"""The Relax passes that a step program needs, and no others.

TVM's default pipeline turns ``relax.reshape`` into a kernel and then looks for kernels that only reshape, to turn
them back into views. That search takes every kernel with one input for a candidate and stops with an internal error
at those that were not made by TVM's own operators. A step holds nothing but kernel calls and reshapes, so reshapes
simply stay what they are: views, with no copy.
"""

from __future__ import annotations

import tvm
from tvm.relax import transform


def step_passes() -> tvm.transform.Pass:
    """From the module that ``emit`` makes to one ready for code generation."""
    return tvm.transform.Sequential(
        [
            transform.ToNonDataflow(),
            transform.RemovePurityChecking(),
            transform.CallTIRRewrite(),
            transform.StaticPlanBlockMemory(),
            transform.LowerAllocTensor(),
            transform.KillAfterLastUse(),
            transform.LowerRuntimeBuiltin(),
            transform.ComputePrimValue(),
            transform.VMShapeLower(),
            transform.AttachGlobalSymbol(),
        ]
    )
