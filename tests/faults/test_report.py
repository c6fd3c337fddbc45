"""The page shows what the file of results has, good or bad."""

from __future__ import annotations

import shlex

import pytest

from tests.faults import report
from tests.faults.__main__ import parsed, told
from tests.faults.checker import COLUMNS, Row
from tests.faults.run import Report
from tests.faults.schedule import LONG, SHORT, Shape, schedule


def result(seed: int, **wrong: int) -> dict[str, object]:
    """A run's, as it is in the file."""
    return {
        "seed": seed,
        "spans": 1000,
        "counts": dict.fromkeys(COLUMNS, 0) | {name.replace("_", " "): count for name, count in wrong.items()},
        "allowed": {"duplicated in Jaeger": {"killed": 3, "unanswered request": 2}},
    }


def test_the_page_is_up_to_date() -> None:
    page = report.PAGE.read_text(encoding="utf-8")
    assert report.filled(page, report.load()) == page, "python -m tests.faults.report"


def test_every_run_has_a_row_and_the_last_is_their_sum() -> None:
    text = report.table([result(1), result(2, logs_lost=4)])
    first, second, total = (line.split(" | ") for line in text.splitlines()[2:])
    place = report.HEADINGS.index("Logs lost")
    assert (first[place], second[place], total[place]) == ("0", "4", "4")
    jaeger = report.HEADINGS.index("Duplicated in Jaeger")
    assert (first[jaeger], total[jaeger]) == ("0 (+5)", "0 (+10)")
    assert total[:2] == ["| all 2", "2,000"]


def test_a_terminal_shows_the_same_cells() -> None:
    text = report.aligned(report.table([result(7, two_verdicts=1)]))
    headings, row = text.splitlines()
    assert len(headings) == len(row)
    assert row.split()[:2] == ["7", "1,000"]


@pytest.mark.parametrize("shape", [LONG, SHORT])
def test_a_run_that_fails_tells_its_seed_and_one_command_that_does_it_again(shape: Shape) -> None:
    found = Report(schedule(7, shape), Row(), {"spans": 1000})
    assert not any("failed" in line for line in told(found))
    found.row.add("traces split", "0a0b has 2 of 3 spans")
    *_, what, last = told(found)
    assert what == "traces split: 0a0b has 2 of 3 spans"
    assert last.startswith("seed 7 failed, again: make faults ")
    command = shlex.split(last.partition("again: ")[2])[-1].removeprefix("ARGS=")
    options = parsed(command.split())
    assert [schedule(seed, SHORT if options.short else LONG) for seed in options.seeds] == [found.schedule]


def test_a_schedule_is_told_in_words() -> None:
    plan = schedule(7, LONG)
    lines = plan.lines()
    assert lines[0].startswith("seed 7: workers ")
    assert len(lines) == 1 + len(plan.faults)
