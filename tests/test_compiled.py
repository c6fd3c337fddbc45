"""Two runs of the suite: one with the hot modules compiled, one without. Neither may be the other by mistake."""

from __future__ import annotations

import sys
from importlib import import_module
from importlib.machinery import EXTENSION_SUFFIXES

import pytest

from tests.repository import ROOT

HOT = [
    ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for package in ("schemas", "processors")
    for path in sorted((ROOT / package).rglob("*.py"))
    if "\nimport cython\n" in path.read_text(encoding="utf-8")
]


def test_every_hot_module_is_what_this_run_is_about() -> None:
    compiled = "sitecustomize" in sys.modules and hasattr(sys.modules["sitecustomize"], "Compiled")
    native = [name for name in HOT if str(import_module(name).__file__).endswith(tuple(EXTENSION_SUFFIXES))]
    assert native == (HOT if compiled else [])
    assert "schemas.otlp_scan" in HOT


@pytest.mark.uncompiled
def test_without_the_folder_of_compiled_modules_nothing_is_native() -> None:
    assert not str(import_module("schemas.otlp_scan").__file__).endswith(tuple(EXTENSION_SUFFIXES))
