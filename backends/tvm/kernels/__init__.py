"""TIR kernels for x86-64: factories that return a ``tirx.PrimFunc`` for a frozen spec, one family per file."""
