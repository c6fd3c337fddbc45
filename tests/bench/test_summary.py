"""The series beside the Collector, a line each."""

from __future__ import annotations

from bench.bars import LEAST_CPU, LEAST_MEMORY, TWO
from bench.contestants import TAILRACE
from bench.measure import load_results
from bench.summary import COLUMNS, rows
from tests.bench.results import one, series


def told(**sides: list[dict[str, object]]) -> list[list[str]]:
    found = series("b", {TAILRACE: [one(2.0, rss=100)], **sides}) | {
        "title": "un-keyed topic", "load": "paced", "placement": "pinned",
    }  # fmt: skip
    return rows({"series": {"x": found}})


def test_a_line_for_one_collector_and_one_for_two() -> None:
    one_row, two_row = told(**{LEAST_CPU: [one(8.0)], LEAST_MEMORY: [one(20.0, rss=450)], TWO: [one(10.0)]})
    assert one_row == ["Un-keyed topic: paced, pinned", "1", "2.0", "8.0", "4.0×", "4.0×", "100", "450", "4.5×"]
    assert two_row[0].endswith(", against two Collectors")
    assert two_row[3:5] + two_row[7:] == ["10.0", "5.0×", "–", "–"]


def test_a_side_that_lost_traces_is_no_measure() -> None:
    ((*_, cpu, times, _, _, _, _),) = told(**{LEAST_CPU: [one(1.0, missing=3)]})
    assert (cpu, times) == ("–", "–")


def test_every_series_is_told() -> None:
    figures = load_results("compare")
    assert figures is not None
    found = rows(figures)
    assert {len(row) for row in found} == {len(COLUMNS)}
    assert len({row[0] for row in found}) == len(found) >= len(figures["series"])
