#!/usr/bin/env bash
# Run Python tests of a copy of this tree whose path is made of what paths should not matter for: folders called
# `torch` and `fretsaw`, blanks, a letter beyond ASCII.
#
#   bash tools/dev/odd_folder.sh [PYTEST ARGUMENTS]     default: what needs neither minutes nor the built runtime
#
# The copy is what git sees, changes and new files included. It borrows the virtual environment and build/wheel by
# links, so that their paths are odd too. KEEP=1 leaves the copy where it is.
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
[ $# -gt 0 ] || set -- -q -x -m "not slow and not exhaustive and not native"

top=$(mktemp -d)
[ -n "${KEEP:-}" ] || trap 'rm -rf "$top"' EXIT
copy="$top/torch/my fretsaw é/fretsaw"
mkdir -p "$copy" "$top/my tmp é"
(
  cd "$root"
  # A file that was deleted is still listed.
  git ls-files -z --cached --others --exclude-standard |
    while IFS= read -r -d '' name; do [ ! -f "$name" ] && [ ! -L "$name" ] || printf '%s\0' "$name"; done |
    tar -c --null --no-recursion -T - | tar -x -C "$copy"
)
ln -s "$root/.venv" "$copy/.venv"
mkdir -p "$copy/build"
[ ! -d "$root/build/wheel" ] || ln -s "$root/build/wheel" "$copy/build/wheel"

# The package, as links to the copy's folders. An __init__.py, for a namespace would take in the installed package.
# The editable install finds modules before PYTHONPATH does; `sitecustomize` runs after it in every process and
# removes its finder.
links="$copy/.links"
mkdir -p "$links/fretsaw"
touch "$links/fretsaw/__init__.py"
for folder in ir frontend passes backends tools; do ln -s "../../$folder" "$links/fretsaw/$folder"; done
ln -s ../../runtime/python "$links/fretsaw/runtime"
cat >"$links/sitecustomize.py" <<'PY'
import sys

sys.meta_path[:] = [f for f in sys.meta_path if not type(f).__module__.startswith("_editable_")]
PY

cd "$copy"
export PYTHONPATH="$links" FRETSAW_BUILD="$copy/build/wheel" TMPDIR="$top/my tmp é"
export FRETSAW_SHARED="${FRETSAW_SHARED:-$root/../shared}"
python="$copy/.venv/bin/python"

# Without this the tests would pass on the tree beside.
"$python" - "$copy" <<'PY'
import importlib
import sys
from pathlib import Path

copy = Path(sys.argv[1]).resolve()
names = [f"fretsaw.{name}" for name in ("ir", "frontend", "passes", "backends", "tools", "runtime")]
for name in ("fretsaw", *names, "tests.conftest"):
    file = Path(importlib.import_module(name).__file__).resolve()
    if not file.is_relative_to(copy):
        sys.exit(f"odd_folder: {name} is {file}, which is not in the copy")
PY
echo "odd folder: $copy"
"$python" -m pytest -p no:cacheprovider "$@"
