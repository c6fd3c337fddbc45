"""The committed figures of `tailrace simulate` and `tailrace explain` meet their bars."""

from __future__ import annotations

from bench.history import COLUMNS, EXPLAIN_COLUMNS, REPLAYS, explain_rows, rows
from bench.measure import load_results

REAL_TIMES = 5.0
LONGEST_P95 = 1.0  # seconds
DECISIONS = 990_000  # a million, but for trace ids that met


def test_history_is_decided_again_five_times_as_fast_as_it_came_and_as_it_was() -> None:
    found = load_results("history")
    assert found is not None
    for load in found["loads"].values():
        for name in REPLAYS:
            assert load[name]["times_real_time"] >= REAL_TIMES
            assert load[name]["live"]["same"] == load["load"]["traces"]
            assert load[name]["live"]["different"] == 0


def test_a_trace_among_a_million_is_explained_within_a_second() -> None:
    found = load_results("history")
    assert found is not None
    told = max((load["explain"] for load in found["loads"].values()), key=lambda told: told["decisions"])
    assert told["decisions"] >= DECISIONS
    assert told["p95_seconds"] < LONGEST_P95


def test_rows_have_a_cell_for_every_column() -> None:
    found = load_results("history")
    assert found is not None
    assert {len(row) for row in rows(found)} == {len(COLUMNS)}
    assert {len(row) for row in explain_rows(found)} == {len(EXPLAIN_COLUMNS)}
