"""Both kinds of wheel, plain and native: what is in them, and the scanner's suite on each, unpacked and alone.

`make test` runs this file once, in its compiled stage. The native wheel's build finds what .ci/compiled.py made of the
same sources up to date, so that it takes seconds; one module it compiles itself.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from importlib import import_module
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest
from Cython.Utils import GENERATED_BY_MARKER

from tests.repository import HOT, ROOT, committed

PACKAGES = ("pipeline", "processors", "schemas", "sinks")
SUITE = "tests/schemas/test_otlp_scan.py"
NATIVE = EXTENSION_SUFFIXES[0]
COMPILED_HERE = "processors.known_rows"  # the smallest
PROGRAM = f"""
import sys, pytest
status = pytest.main(["-q", "-p", "no:cacheprovider", "--hypothesis-profile=few", "{SUITE}"])
for name, module in list(sys.modules.items()):
    if name.partition(".")[0] in {PACKAGES}:
        print("ran", name, module.__file__)
sys.exit(status)
"""


def test_the_plain_wheel_has_no_native_code_and_passes_the_scanners_suite(tmp_path: Path) -> None:
    wheel = built(source(tmp_path), native=False)
    assert tag(wheel) == "py3-none-any"
    assert native_modules(wheel) == []
    ran = suite_on(wheel, tmp_path / "alone")
    assert {file.suffix for file in ran.values()} == {".py"}


@pytest.mark.compiled
@pytest.mark.timeout(900)  # if it compiles everything after all
def test_the_native_wheel_has_every_hot_module_and_passes_the_scanners_suite(tmp_path: Path) -> None:
    folder = source(tmp_path)
    for name in HOT:
        if name != COMPILED_HERE:
            give(folder, name)
    wheel = built(folder, native=True)
    python = f"cp{sys.version_info.major}{sys.version_info.minor}"
    platform = sysconfig.get_platform().replace("-", "_").replace(".", "_")
    assert tag(wheel) == f"{python}-{python}-{platform}"
    assert native_modules(wheel) == sorted(HOT)
    ran = suite_on(wheel, tmp_path / "alone")
    assert sorted(name for name, file in ran.items() if file.name.endswith(NATIVE)) == sorted(ran.keys() & set(HOT))


def source(folder: Path) -> Path:
    """A copy of what a wheel is made of."""
    files = committed("setup.py", "pyproject.toml", "README.md", "LICENSE", *PACKAGES)
    return copied(files, folder / "source")


def copied(files: list[Path], folder: Path) -> Path:
    """Files of the checkout in a folder, where they are in the checkout. They are as old as the copy."""
    for file in files:
        copy = folder / file.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)
    return folder


def give(folder: Path, name: str) -> None:
    """The native module that this process runs, as the result of a build; Cython's C is not kept, so its first line
    stands for it, by which Cython knows its own."""
    made = Path(str(import_module(name).__file__))
    assert made.name.endswith(NATIVE), "this test needs the compiled modules: `make test`"
    place = Path(*name.split("."))
    (folder / place).with_suffix(".c").write_text(f"{GENERATED_BY_MARKER}\n", encoding="utf-8")
    target = (folder / "built" / place).with_suffix(NATIVE)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(made, target)


def built(folder: Path, *, native: bool) -> Path:
    """The wheel of a copy, by setup.py and what the environment has."""
    command = [sys.executable, "setup.py", "--quiet", "build", "--build-lib", "built", "bdist_wheel", "-d", "wheels"]
    made = run(command, folder, TAILRACE_COMPILE=str(int(native)))
    assert made.returncode == 0, made.stderr
    [wheel] = (folder / "wheels").iterdir()
    return wheel


def tag(wheel: Path) -> str:
    """Python, ABI and platform, as the name says and the wheel's metadata."""
    _, _, named = wheel.stem.split("-", 2)
    with zipfile.ZipFile(wheel) as files:
        [metadata] = (name for name in files.namelist() if name.endswith(".dist-info/WHEEL"))
        lines = files.read(metadata).decode().splitlines()
    assert f"Tag: {named}" in lines
    return named


def native_modules(wheel: Path) -> list[str]:
    """Names of what is native code in it."""
    with zipfile.ZipFile(wheel) as files:
        names = [name for name in files.namelist() if name.endswith((".so", ".pyd", ".dylib"))]
    return sorted(name.removesuffix(NATIVE).replace("/", ".") for name in names)


def suite_on(wheel: Path, folder: Path) -> dict[str, Path]:
    """Run the scanner's suite in a folder that has the unpacked wheel and the tests; the file of each of Tailrace's
    modules that it imported."""
    copied(committed("pyproject.toml", "tests"), folder)
    with zipfile.ZipFile(wheel) as files:
        files.extractall(folder)
    done = run([sys.executable, "-c", PROGRAM], folder)
    assert done.returncode == 0, done.stdout + done.stderr
    words = [line.split() for line in done.stdout.splitlines() if line.startswith("ran ")]
    found = {name: Path(file) for _, name, file in words}
    assert "schemas.otlp_scan" in found
    assert all(file.is_relative_to(folder) for file in found.values())
    return found


def run(command: list[str], folder: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """In a folder, where nothing of the checkout can be found."""
    environment = {
        name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTEST_ADDOPTS")
    } | more
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
