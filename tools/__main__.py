"""``python -m fretsaw.tools`` is the ``fretsaw`` command."""

from fretsaw.tools.cli import main

main()
