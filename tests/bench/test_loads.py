"""What other loads make of the comparison, told from results."""

from __future__ import annotations

from typing import Any

import pytest

from bench import sweep
from bench.bars import LEAST_CPU, LEAST_MEMORY, TWO
from bench.compare import parsed
from bench.compare_tables import heading
from bench.contestants import MODES, TAILRACE
from bench.loads import COLUMNS, GROWTH_COLUMNS, growth_rows, rows
from bench.measure import load_results
from tests.bench.results import one, series

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
    assert row == ["30 policies, 27 of which match nothing", "3.5×", "2.5×", "4.0×", "1.2×", "0.7×", "–"]


def test_a_load_without_a_run_that_counts_has_dashes() -> None:
    lossy = {**UNKEYED, TWO: [one(1.0, missing=3)]}
    assert told(series("b", lossy, percentage=50.0)) == [["50 % of all kept", "–", "–", "–", "1.2×", "0.7×", "–"]]


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
    found, grown = rows(figures), growth_rows(figures)
    assert {len(row) for row in found} == {len(COLUMNS)}
    assert {len(row) for row in grown} == {len(GROWTH_COLUMNS)}
    assert len(found) * len(sweep.SIDES) + len(grown) == len(figures["series"])
    told = [load for load, *_ in (*found, *grown)]
    assert len(set(told)) == len(told)
    assert all(heading(each).endswith(tuple(told)) for each in figures["series"].values())


def test_loads_that_grow_have_a_table_of_their_own() -> None:
    large = series("a", KEYED, spans_per_trace=2, live=100_000, spans=200_000)
    figures = {"series": {0: large, 1: series("a", KEYED, unmet=27)}}
    grown = ["2 spans a trace, 100,000 traces undecided at once", "200,000", "2.00 (1.00 to 4.00)", "7.00", "3.5×"]
    assert growth_rows(figures) == [[*grown, "100 (100 to 100)", "250", "2.5×"]]
    assert [row[0] for row in rows(figures)] == ["30 policies, 27 of which match nothing"]


def test_the_sweep_has_every_load_in_every_mode() -> None:
    """Each with options of its own: none takes another's place."""
    keys = [tuple(given[: given.index("--sides")]) for given in sweep.series()[:-1]]
    assert len(set(keys)) == len(keys) == len(sweep.LOADS) * len(sweep.SIDES) + len(sweep.GROWTH + sweep.ATTRIBUTES)
    for given in sweep.series():
        found = parsed(given)
        assert set(found.sides) <= MODES[found.modes[0]].sides.keys()
