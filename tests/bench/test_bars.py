"""What was to be reached, told from results."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from bench.bars import COLUMNS, HOPS, KEYED, RESULTS, UNKEYED, rows
from bench.compare_tables import cpu, ratio
from bench.contestants import TAILRACE
from bench.measure import load_results

GOALS = (
    "CPU of a span, keyed topic: ",
    "A window of 10 min in 1 GiB",
    ": drained ",
    "6 million samples of 100,000 series",
    "p99 of a hop, ingest",
    "CPU of a span: self-telemetry on against off",
)


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
    runs = results["compare"]["series"][KEYED]["sides"]
    telemetry = results["pairs"]["cases"]["telemetry"]
    for good in (True, False):
        for run in runs[TAILRACE]:
            run["cpu_per_million"] = 0.1 if good else 10.0
        results["window"]["run"]["missing_traces"] = 0 if good else 1
        results["sustained"]["drained_seconds"] = 31.0 if good else 41.0
        results["series"]["found"]["count"] = 100_000.0 if good else 99_999.0
        for name in HOPS:
            results[name]["hops"]["ingest"]["p99"] = 110 if good else 111
        telemetry["first"] = deepcopy(telemetry["second"])
        for run in telemetry["first"]:
            run["cpu_per_million"] *= 1 if good else 1.03
        found = {name: answer for goal, answer in reached(results).items() for name in GOALS if name in goal}
        assert found == dict.fromkeys(GOALS, "yes" if good else "no")


def test_a_side_without_a_run_that_counts_is_no_measure() -> None:
    results = saved()
    series = results["compare"]["series"][UNKEYED]
    for run in series["sides"]["Collector, least CPU"]:
        run["missing_traces"] = 1
    assert ratio(series, TAILRACE, "Collector, least CPU", cpu) is None
    assert reached(results)["CPU of a span, un-keyed topic, against one Collector: ≥ 4×"] == "–"
    del results["compare"]["series"][KEYED]
    assert reached(results)["CPU of a span, keyed topic: ≥ 10×"] == "–"
