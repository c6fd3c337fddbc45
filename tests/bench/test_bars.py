"""What was to be reached, told from results."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from bench.bars import COLUMNS, KEYED, RESULTS, UNKEYED, rows
from bench.compare_tables import cpu, ratio
from bench.contestants import TAILRACE
from bench.measure import load_results


def saved() -> dict[str, Any]:
    """The committed results, to be changed."""
    return {name: deepcopy(load_results(name)) for name in RESULTS}


def reached(results: dict[str, Any]) -> dict[str, str]:
    """Whether each goal is, by its name and bar."""
    return {f"{goal}: {bar}": answer for goal, bar, _, answer in rows(*results.values())}


def test_every_goal_is_told_once() -> None:
    found = rows(*saved().values())
    assert {len(row) for row in found} == {len(COLUMNS)}
    assert len({(goal, bar) for goal, bar, *_ in found}) == len(found) >= 20
    assert {answer for *_, answer in found} <= {"yes", "no", "–"}


def test_what_is_measured_decides() -> None:
    results = saved()
    for run in results["compare"]["series"][KEYED]["sides"][TAILRACE]:
        run["cpu_per_million"] = 0.1
    results["window"]["run"]["missing_traces"] = 1
    results["sustained"]["drained_seconds"] = 41.0
    results["series"]["found"]["count"] = 99_999.0
    results["hops"]["hops"]["ingest"]["p99"] = 110
    results["pairs"]["cases"]["telemetry"]["first"] = results["pairs"]["cases"]["telemetry"]["second"]
    before, after = reached(saved()), reached(results)
    changed = {goal.split(",")[0].split(":")[0]: answer for goal, answer in after.items() if answer != before[goal]}
    assert changed.pop("All roles and servers on 2 cores") == "no"
    assert changed.pop("6 million samples of 100") == "no"
    assert changed.pop("A window of 10 min in 1 GiB") == "no"
    assert {"CPU of a span": "yes", "p99 of a hop": "yes"}.items() <= changed.items()


def test_a_side_without_a_run_that_counts_is_no_measure() -> None:
    results = saved()
    series = results["compare"]["series"][UNKEYED]
    for run in series["sides"]["Collector, least CPU"]:
        run["missing_traces"] = 1
    assert ratio(series, TAILRACE, "Collector, least CPU", cpu) is None
    assert reached(results)["CPU of a span, un-keyed topic, against one Collector: ≥ 4×"] == "–"
    del results["compare"]["series"][KEYED]
    assert reached(results)["CPU of a span, keyed topic: ≥ 10×"] == "–"
