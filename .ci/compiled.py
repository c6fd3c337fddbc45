"""Compile this checkout's hot modules (setup.py), once, and print the folder to put on PYTHONPATH before it.

    python .ci/compiled.py I/N      with the interpreter of `.ci/environment dev`

The folder holds the native modules and a sitecustomize.py that finds them first: the checkout stays as it is, and the
same command without the folder runs the same files uncompiled. It is named after a hash of what was compiled.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

from environment import ROOT, cache, say

SITECUSTOMIZE = '''"""Finds the compiled modules beside this file before anything else."""

import importlib.machinery
import importlib.util
import pathlib
import sys

HERE = pathlib.Path(__file__).parent
SUFFIX = importlib.machinery.EXTENSION_SUFFIXES[0]


class Compiled:
    @staticmethod
    def find_spec(name, path=None, target=None):
        file = HERE.joinpath(*name.split(".")).with_suffix(SUFFIX)
        return importlib.util.spec_from_file_location(name, file) if file.exists() else None


sys.meta_path.insert(0, Compiled)
'''


def sources() -> list[Path]:
    """What the native modules are made of."""
    packages = [path for package in ("schemas", "processors") for path in sorted((ROOT / package).rglob("*.py"))]
    return [ROOT / "setup.py", *(path for path in packages if "\nimport cython\n" in path.read_text(encoding="utf-8"))]


def build(folder: Path) -> None:
    """Compile into a new folder. Raises CalledProcessError."""
    with tempfile.TemporaryDirectory() as scratch:
        for source in sources():
            copy = Path(scratch) / source.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, copy)
        command = [sys.executable, "setup.py", "--quiet", "build_ext", "--build-lib", str(folder), "--parallel", "2"]
        environment = {**os.environ, "TAILRACE_COMPILE": "1"}
        subprocess.run(command, cwd=scratch, check=True, stdout=sys.stderr, env=environment)
    (folder / "sitecustomize.py").write_text(SITECUSTOMIZE, encoding="utf-8")
    (folder / "complete").touch()


def main() -> int:
    """Print the folder; 1 with a reason if there can be none."""
    step = sys.argv[1]
    flags = os.environ.get("CFLAGS", "")
    parts = [sys.version, version("cython"), flags, *(path.read_text(encoding="utf-8") for path in sources())]
    folder = cache() / "compiled" / hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            say(step, "compiling the hot modules: half a minute, whenever one of them has changed")
            shutil.rmtree(folder, ignore_errors=True)
            try:
                build(folder)
            except subprocess.CalledProcessError as error:
                print(f"The hot modules could not be compiled: {error}. It needs a C compiler.", file=sys.stderr)
                return 1
    say(step, "compiled modules: ready")
    print(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
