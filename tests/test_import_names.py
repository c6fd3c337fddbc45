"""docs/adr/0002: the four import names are this application's alone."""

from __future__ import annotations

import importlib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from tests.repository import ROOT

NAMES = ("pipeline", "processors", "sinks", "schemas")


@pytest.mark.parametrize("name", NAMES)
def test_no_dependency_owns_the_name(name: str) -> None:
    assert set(packages_distributions().get(name, [])) <= {"tailrace"}


@pytest.mark.parametrize("name", NAMES)
def test_the_name_is_this_checkout(name: str) -> None:
    file = importlib.import_module(name).__file__
    assert file is not None
    assert Path(file).resolve() == ROOT / name / "__init__.py"
