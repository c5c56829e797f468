"""Kernel specs: frozen parameters of kernel families, one file per family. Targets look up their kernels by spec."""
