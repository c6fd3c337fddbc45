"""docs/traps.md names tests and guards that there are."""

from __future__ import annotations

import re

import pytest

from tests.repository import ROOT
from tests.simulation.guards import GUARDS

PAGE = (ROOT / "docs" / "traps.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| ([IFSU]\d+) \| [^|]+ \| (.+) \|$", PAGE, re.MULTILINE)
FOUND = 36  # traps of the first review, numbered
NO_TEST = {31, 32, 33, 34}


@pytest.mark.parametrize(("label", "shown"), ROWS, ids=[label for label, _ in ROWS])
def test_what_shows_it_exists(label: str, shown: str) -> None:
    names = re.findall(r"`([^`]+)`", shown)
    assert names
    for name in names:
        if name.startswith("without: "):
            assert name.removeprefix("without: ") in {guard.name for guard in GUARDS}, name
        else:
            file, _, function = name.partition("::")
            text = (ROOT / "tests" / file).read_text(encoding="utf-8")
            assert re.search(rf"def {function}\(", text), name


def test_the_traps_that_the_decision_settles_are_there() -> None:
    settled = set(re.findall(r"\b[FS]\d+\b", (ROOT / "docs/adr/0003-delivery.md").read_text(encoding="utf-8")))
    assert len(settled) > 20
    assert settled <= {label for label, _ in ROWS}


def test_every_trap_is_there() -> None:
    labels = {label for label, _ in ROWS}
    assert {"I1", "I2", "I3"} <= labels
    assert {f"F{number}" for number in range(1, FOUND + 1)} - labels == {f"F{number}" for number in NO_TEST}
    assert all(f"F{number}" in PAGE.split("no test of its own")[1] for number in NO_TEST)
