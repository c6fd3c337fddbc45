"""Make a virtual environment with this checkout's dependencies, once, and print its interpreter.

    .ci/environment EXTRA I/N      EXTRA: demo (what `make demo` needs) or dev (all that checks and tests need)

Only dependencies go in, never this project: several clones share one cache, and an editable install would point every
clone at the one that came first. The code that runs is the checkout's, by PYTHONPATH (see the Makefile).

An environment is named after a hash of what is in it, so a changed requirement makes a new one and nothing is ever
upgraded in place. It is built under a lock and gets its `complete` file last: an interrupted build is thrown away by
the next run, a finished one costs the next run a few file reads. Standard library only.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
import time
import tomllib
import venv
from pathlib import Path

REVISION = 1  # raise when the way of building changes but the requirements do not
HEARTBEAT_SECONDS = 20
ROOT = Path(__file__).resolve().parent.parent


def requirements(extra: str) -> list[str]:
    """What pyproject.toml asks for, the extra included."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return sorted(project["dependencies"] + project["optional-dependencies"][extra])


def cache() -> Path:
    """Where everything that is built stays, outside git."""
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tailrace"
    return Path(os.environ.get("TAILRACE_CACHE") or user).absolute()


def place(extra: str, wanted: list[str]) -> Path:
    """The folder of the environment with exactly these requirements for this interpreter."""
    parts = [REVISION, sys.version, sysconfig.get_platform(), sys.base_prefix, *wanted]
    digest = hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()[:12]
    return cache() / "environments" / f"{extra}-py{sys.version_info.major}{sys.version_info.minor}-{digest}"


def build(folder: Path, wanted: list[str], step: str) -> None:
    """Create the environment from nothing. Raises CalledProcessError."""
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, symlinks=True, with_pip=True)
    # Wheels only: `make demo` must not need a compiler, and what would need one should say so here.
    install = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:", *wanted]
    environment = {**os.environ, "PYTHONNOUSERSITE": "1"}
    environment.pop("PYTHONPATH", None)
    started = time.monotonic()
    # pip's words go to stderr: stdout carries the answer, and nothing else.
    child = subprocess.Popen([folder / "bin" / "python", *install], stdout=sys.stderr, env=environment)
    try:
        while True:
            try:
                if code := child.wait(HEARTBEAT_SECONDS):
                    raise subprocess.CalledProcessError(code, "pip install")
                break
            except subprocess.TimeoutExpired:
                say(step, f"still installing ({time.monotonic() - started:.0f} s)")
    finally:
        if child.poll() is None:
            child.kill()
            child.wait()
    (folder / "complete").write_text("\n".join(wanted) + "\n", encoding="utf-8")


def say(step: str, text: str) -> None:
    print(f"[{step}] {text}", file=sys.stderr, flush=True)


def main() -> int:
    """Print the interpreter's path; 1 with a reason if there can be none."""
    extra, step = sys.argv[1], sys.argv[2]
    wanted = requirements(extra)
    folder = place(extra, wanted)
    python = folder / "bin" / "python"
    if not (folder / "complete").exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with folder.with_name(f"{folder.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not (folder / "complete").exists():
                say(step, f"Python packages ({extra}): first time only, about a minute, into {folder}")
                try:
                    build(folder, wanted, step)
                except subprocess.CalledProcessError as error:
                    hint = "\nDebian and Ubuntu: apt-get install python3-venv" if "ensurepip" in str(error) else ""
                    print(f"The Python packages could not be installed: {error}{hint}", file=sys.stderr)
                    return 1
    say(step, f"Python packages ({extra}): ready")
    print(python)
    return 0


if __name__ == "__main__":
    sys.exit(main())
