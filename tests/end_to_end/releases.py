"""Other releases of Tailrace as folders to run workers from: earlier commits as installed wheels, builds to come.

Their dependencies are those of this environment: an earlier release needs no others.
"""

from __future__ import annotations

import fcntl
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

from tests.repository import ROOT
from tests.services.recipes import cache

PACKAGES = ("pipeline", "processors", "schemas", "sinks")
FORMATS = ("decision", "envelope", "point", "sample")
NEXT_READS = (1, 2, 3)

PREVIOUS = "b4bda39c231834c9133751c377fa98fc2fe46011"
"""The release before this one: the commit that workers of this one must be able to run beside.

It reads raw topics record by record, its ticks name producers in each source, and it makes topics without room for the
rest of an envelope.
"""


def installed(commit: str) -> Path:
    """The wheel of a commit, built once and installed into a folder of its own.

    Raises AssertionError in a clone without that commit.
    """
    folder = cache().parent / "releases" / commit[:12]
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "complete").exists():
            shutil.rmtree(folder, ignore_errors=True)
            _install(commit, folder)
            (folder / "complete").touch()
    return folder


def _install(commit: str, folder: Path) -> None:
    archive = subprocess.run(["git", "archive", commit], cwd=ROOT, capture_output=True)
    shallow = subprocess.run(["git", "rev-parse", "--is-shallow-repository"], cwd=ROOT, capture_output=True, text=True)
    assert archive.returncode == 0, (
        f"commit {commit[:12]}, the release before this one, is not in this clone"
        + (", which is shallow: git fetch --unshallow" if shallow.stdout.strip() == "true" else "")
        + f"\n{archive.stderr.decode()}"
    )
    with tempfile.TemporaryDirectory() as source:
        with tarfile.open(fileobj=io.BytesIO(archive.stdout)) as files:
            files.extractall(source, filter="data")
        # Uncompiled: they run for seconds, under a small load, and to compile takes minutes.
        environment = {**os.environ, "TAILRACE_COMPILE": "0"}
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
        subprocess.run([*pip, "--no-index", "--target", str(folder), source], env=environment, check=True)


def of_the_next_version(folder: Path, written: bool) -> Path:
    """This checkout, as it will be when every internal record has the next version: read already, and then written."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in FORMATS:
        file = folder / "schemas" / f"{name}.py"
        text, found = re.subn(r"(?m)^READS = .*$", f"READS = {NEXT_READS}", file.read_text(encoding="utf-8"))
        assert found == 1, file
        if written:
            text, found = re.subn(r"(?m)^((?:CLOSED_)?VERSION) = \d+$", rf"\1 = {NEXT_READS[-1]}", text)
            assert found, file
        file.write_text(text, encoding="utf-8")
    return folder
