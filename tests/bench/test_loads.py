"""What other loads make of the comparison, told from results."""

from __future__ import annotations

from typing import Any

import pytest

from bench.bars import LEAST_CPU, LEAST_MEMORY, TWO
from bench.compare_tables import DEFAULTS, heading
from bench.contestants import TAILRACE
from bench.loads import COLUMNS, rows
from bench.measure import load_results


def one(cpu: float, *, broker: float = 0.0, rss: int = 100, missing: int = 0) -> dict[str, Any]:
    return {
        "cpu_per_million": cpu,
        "broker_cpu_per_million": broker,
        "peak_rss_bytes": {"x": rss << 20},
        "missing_traces": missing,
        "surplus_traces": 0,
    }


def series(mode: str, sides: dict[str, list[dict[str, Any]]], **unusual: Any) -> dict[str, Any]:
    return {"mode": mode, "options": {**DEFAULTS, "failures": True, **unusual}, "sides": sides}


KEYED = {
    TAILRACE: [one(2.0), one(1.0), one(4.0)],
    LEAST_CPU: [one(7.0, rss=900)],
    LEAST_MEMORY: [one(20.0, rss=250)],
}
UNKEYED = {TAILRACE: [one(5.0, broker=5.0)], TWO: [one(20.0)], LEAST_CPU: [one(6.0, broker=1.0)]}


def told(*found: dict[str, Any]) -> list[list[str]]:
    return rows({"series": dict(enumerate(found))})


def test_a_row_is_a_load_in_either_mode() -> None:
    (row,) = told(series("a", KEYED, unmet=27), series("b", UNKEYED, unmet=27))
    assert row == ["30 policies, 27 of which match nothing", "3.5×", "2.5×", "4.0×", "1.2×", "0.7×"]


def test_a_load_without_a_run_that_counts_has_dashes() -> None:
    lossy = {**UNKEYED, TWO: [one(1.0, missing=3)]}
    assert told(series("b", lossy, percentage=50.0)) == [["50 % of all kept", "–", "–", "–", "1.2×", "0.7×"]]


@pytest.mark.parametrize(
    ("unusual", "name"),
    [
        ({"spans_per_message": 1}, "1 span a message"),
        ({"spans_per_message": 10}, "10 spans a message"),
        ({"percentage": 1.0, "failures": False}, "1 % of all kept, nothing kept for an error or a long duration"),
    ],
)
def test_loads_are_named_for_people(unusual: dict[str, Any], name: str) -> None:
    assert [row[0] for row in told(series("a", KEYED, **unusual))] == [name]


def test_each_load_of_the_sweep_is_told_once() -> None:
    figures = load_results("sweep")
    assert figures is not None
    found = rows(figures)
    assert {len(row) for row in found} == {len(COLUMNS)}
    assert len({load for load, *_ in found}) == len(found) == len(figures["series"]) / 2
    assert all(heading(each).endswith(tuple(load for load, *_ in found)) for each in figures["series"].values())
