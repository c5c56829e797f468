"""A copy of a tree that can be changed and run: its Python imports itself, its C++ has a build folder of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from fretsaw.tools.dev.mutants.faults import Fault, Untrusted

PACKAGES = ("ir", "frontend", "passes", "backends", "tools")
TARGETS = ("fretsaw-tests", "fretsaw-sampler-tool")
TIMEOUT = 900  # seconds; a fault that makes a test hang has been noticed

# The editable install puts a finder before PYTHONPATH, which leads every import to the tree that was installed.
SITE = """import sys
sys.meta_path[:] = [f for f in sys.meta_path if not type(f).__module__.startswith("_editable_")]
"""


class Scratch:
    """A copy of a tree that can be changed and run."""

    def __init__(self, tree: Path, root: Path, python: str, jobs: int) -> None:
        self.root, self.python, self.jobs = root, python, jobs
        self.build = root / "build" / "mutants"
        _copy(tree, root)
        links = root / ".links"
        (links / "fretsaw").mkdir(parents=True)
        (links / "sitecustomize.py").write_text(SITE)
        (links / "fretsaw" / "__init__.py").touch()  # no namespace, to which the installed package would add
        for name in PACKAGES:
            (links / "fretsaw" / name).symlink_to(root / name)
        (links / "fretsaw" / "runtime").symlink_to(root / "runtime" / "python")
        own = {"PYTHONPATH": str(links), "PYTHONDONTWRITEBYTECODE": "1", "FRETSAW_BUILD": str(self.build)}
        own |= {"XDG_CACHE_HOME": str(root / "build" / "cache")}  # what is compiled of a fault must not leave the copy
        own |= {"FRETSAW_SHARED": os.environ.get("FRETSAW_SHARED", str(tree.parent / "shared"))}
        quiet = {"OMP_NUM_THREADS": "1", "TVM_NUM_THREADS": "1"}
        self.env = {k: v for k, v in os.environ.items() if not k.startswith("FRETSAW_")} | own | quiet

    def run(self, *command: str) -> tuple[int, str]:
        """Exit status and output; the status of a command that hangs is that of ``timeout``, 124."""
        try:
            done = subprocess.run(
                command, cwd=self.root, env=self.env, text=True, errors="replace", timeout=TIMEOUT,
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return 124, ""
        return done.returncode, done.stdout

    def check_imports(self, files: Iterable[str]) -> None:
        """Make sure that an import of each file's module reads this copy."""
        modules = {f: ".".join(["fretsaw", *Path(f).with_suffix("").parts]) for f in files}
        code = "import sys, importlib.util as u\nfor m in sys.argv[1:]: print(u.find_spec(m).origin)"
        status, out = self.run(self.python, "-c", code, *modules.values())
        found = [str(Path(line).resolve()) for line in out.splitlines()]
        if status or found != [str(self.root / f) for f in modules]:
            raise Untrusted(f"the copy does not import its own code:\n{out}")

    def compile(self) -> None:
        """Bring the C++ test programs up to date; -O0, for a changed file should be back in seconds."""
        if not (self.build / "build.ninja").exists():
            python = [f"-D{name}_EXECUTABLE={self.python}" for name in ("Python", "Python3")]
            flags = ["-DCMAKE_BUILD_TYPE=Debug", "-DCMAKE_CXX_FLAGS_DEBUG=-O0"]
            self._must("cmake", "-S", ".", "-B", str(self.build), "-G", "Ninja", *flags, *python)
        self._must("cmake", "--build", str(self.build), "-j", str(self.jobs), "--target", *TARGETS)

    def _must(self, *command: str) -> None:
        status, out = self.run(*command)
        if status:
            raise Untrusted(f"{' '.join(command[:2])} failed:\n{out[-4000:]}")

    def pytest(self, tests: Sequence[str]) -> tuple[int, str]:
        shutil.rmtree(self.root / ".hypothesis", ignore_errors=True)  # examples that another fault left behind
        options = ("-q", "-x", "-rfEs", "-W", "error", "-p", "no:cacheprovider", "--hypothesis-seed=0", "--tb=short")
        return self.run(self.python, "-m", "pytest", *options, *tests)

    def doctest(self, cases: Sequence[str]) -> tuple[int, str]:
        filters = ",".join(case.replace(",", r"\,") for case in cases)
        return self.run(str(self.build / "fretsaw-tests"), f"--test-case={filters}")

    @contextmanager
    def planted(self, fault: Fault) -> Iterator[None]:
        """The copy with one fault in it."""
        path = self.root / fault.file
        text = path.read_text(encoding="utf-8")
        path.write_text(fault.planted(text), encoding="utf-8")
        try:
            yield
        finally:
            path.write_text(text, encoding="utf-8")  # with a new time, so that its object is built again


def _copy(tree: Path, root: Path) -> None:
    """Copy what git would see of a working tree. An older copy in ``root`` goes, less its build folder."""
    for old in root.iterdir():
        if old.name != "build":
            shutil.rmtree(old) if old.is_dir() else old.unlink()
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=tree, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        if (tree / name).is_file():  # a file that was deleted is still listed
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(tree / name, root / name)
