"""Two runs of the suite: one with the hot modules compiled, one without. Neither may be the other by mistake."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib import import_module
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

from tests.end_to_end.harness import Worker
from tests.repository import HOT, ROOT


def test_every_hot_module_is_what_this_run_is_about() -> None:
    compiled = "sitecustomize" in sys.modules and hasattr(sys.modules["sitecustomize"], "Compiled")
    native = [name for name in HOT if str(import_module(name).__file__).endswith(tuple(EXTENSION_SUFFIXES))]
    assert native == (HOT if compiled else [])
    assert "schemas.otlp_scan" in HOT


def test_the_types_of_every_hot_module_are_those_of_the_compiler() -> None:
    overrides = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["mypy"]["overrides"]
    assert [sorted(each["module"]) for each in overrides if "disable_error_code" in each] == [sorted(HOT)]


@pytest.mark.uncompiled
def test_without_the_folder_of_compiled_modules_nothing_is_native() -> None:
    assert not str(import_module("schemas.otlp_scan").__file__).endswith(tuple(EXTENSION_SUFFIXES))


def test_a_worker_process_runs_what_the_tests_run(tmp_path: Path) -> None:
    """The tests' and benchmarks' workers get their environment from `Worker.command`."""
    prefix = Worker(tmp_path / "none.yaml", ["sample"]).command()
    environment = prefix[: prefix.index(sys.executable)]
    command = [*environment, sys.executable, "-c", "import schemas.otlp_scan as module; print(module.__file__)"]
    printed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert printed.strip() == str(import_module("schemas.otlp_scan").__file__)
