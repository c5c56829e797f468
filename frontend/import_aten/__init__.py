"""Import of exported ATen programs into the IR: a driver and tables of rules, one per ATen op."""

from fretsaw.frontend.import_aten.importer import import_program

__all__ = ["import_program"]
