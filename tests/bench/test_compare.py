"""Series of a comparison: what counts, what is shown, and what the command line makes of it. And one on real Kafka."""

from __future__ import annotations

from typing import Any

from bench import measure
from bench.compare import options_of, parsed, told
from bench.compare_tables import COLUMNS, DEFAULTS, RATIO_COLUMNS, command, heading, kept, key, native, ratios, rows
from bench.contest import catch_up, run, task_of
from bench.contestants import LEAN, MODES, TAILRACE
from bench.load import Load
from bench.report import compare_text
from bench.verdicts import Mix, digest
from tests.bench.results import MACHINE
from tests.repository import COMPILED
from tests.services import Kafka

PARTITIONS = 2


def one(cpu: float, *, missing: int = 0, rss: int = 100) -> dict[str, Any]:
    return {
        "cpu_per_million": cpu,
        "broker_cpu_per_million": 2.0,
        "start_up_cpu_seconds": {"x": 0.5},
        "peak_rss_bytes": {"x": rss << 20, "y": rss << 20},
        "kafka_bytes_per_raw_byte": 1.2,
        "seconds": 9.0,
        "spans_per_second": 20_000.0,
        "drained_seconds": None,
        "kept_traces": 7,
        "kept_ids": "0c1d2e3f4a5b",
        "missing_traces": missing,
        "surplus_traces": 0,
        "native": {"x": ["otlp_scan"]},
    }


def series(**sides: list[dict[str, Any]]) -> dict[str, Any]:
    options = {**DEFAULTS, "runs": 3, "seconds": 120.0, "spans": 1000, "failures": True}
    named = {TAILRACE if name == "own" else name: runs for name, runs in sides.items()}
    return {
        "mode": "b", "title": "regrouping", "load": "paced", "placement": "free", "options": options, "sides": named
    }  # fmt: skip


def test_medians_with_extremes_and_ratios() -> None:
    found = series(own=[one(1.0), one(3.0), one(2.0)], peer=[one(20.0, rss=400)])
    own, peer = rows(found)
    assert own[:5] == ["Tailrace", "2.00 (1.00 to 3.00)", "2.00 (2.00 to 2.00)", "0.50 (0.50 to 0.50)",
                       "200 (200 to 200)"]  # fmt: skip
    assert peer[1] == "20.00"
    assert ratios(found) == [[TAILRACE, "peer", "10.0×", "5.5×", "4.0×"]]
    assert {len(own), len(peer)} == {len(COLUMNS)}
    assert len(ratios(found)[0]) == len(RATIO_COLUMNS)


def test_a_run_that_lost_something_does_not_count_as_cheap() -> None:
    found = series(own=[one(2.0)], peer=[one(1.0, missing=5), one(8.0)], other=[one(1.0, missing=70)])
    assert [row[1] for row in rows(found)] == ["2.00", "8.00", "–"]
    assert rows(found)[1][-1] == "1 of 2; lost or cut in the others: 5 traces"
    assert [row[1:3] for row in ratios(found)] == [["peer", "4.0×"]]
    assert "NOT THE SAME TRACES: 5 missing" in told(one(1.0, missing=5))


def test_both_settings_of_tailrace_are_told_against_each_other_side() -> None:
    found = series(own=[one(2.0, rss=300)], peer=[one(20.0, rss=600)])
    found["sides"][LEAN] = [one(4.0, rss=150)]
    assert [(row[0], row[1], row[2], row[4]) for row in ratios(found)] == [
        (TAILRACE, "peer", "10.0×", "2.0×"),
        (LEAN, "peer", "5.0×", "4.0×"),
    ]


def test_it_is_said_whether_the_workers_ran_compiled() -> None:
    found = series(own=[one(1.0)])
    assert native(found) == "Tailrace's hot modules compiled: yes; asyncio's loop."
    found["sides"][TAILRACE][0]["native"]["sample"] = ["loop"]
    assert native(found) == "Tailrace's hot modules compiled: **no**; uvloop."


def test_both_sides_are_seen_to_have_kept_the_same_trace_ids() -> None:
    found = series(
        own=[one(1.0), one(1.0)], peer=[one(8.0), one(8.0, missing=3) | {"kept_traces": 4, "kept_ids": "no"}]
    )
    assert kept(found) == "Kept in each of the 3 runs that count: 7 traces, ids `0c1d2e3f4a5b`."
    assert "kept 7 traces, ids 0c1d2e3f4a5b, the same traces: 0 missing" in told(one(1.0))
    found["sides"]["peer"][0]["kept_ids"] = "ffffffffffff"
    assert "7 traces, ids `0c1d2e3f4a5b` or 7 traces, ids `ffffffffffff`" in kept(found)


def test_results_without_the_digest_are_still_shown() -> None:
    found = series(own=[one(1.0)], peer=[one(8.0)]) | {"machine": MACHINE}
    assert f"{kept(found)}\n" in compare_text({"series": {"x": found}})
    for runs in found["sides"].values():
        del runs[0]["kept_ids"]
    assert kept(found) == ""
    assert "Kept in each" not in compare_text({"series": {"x": found}})
    assert "8.0×" in compare_text({"series": {"x": found}})


def test_a_paced_series_shows_how_far_behind_a_side_was() -> None:
    found = series(own=[one(1.0) | {"drained_seconds": 1.25}])
    assert rows(found)[0][6] == "1.2"
    assert rows(series(own=[one(1.0)]))[0][6] == "20,000"


def test_what_is_not_as_usual_tells_series_apart() -> None:
    found = series(own=[one(1.0)])
    assert key(found) == "--modes b --loads paced --placements free"
    said = "python -m bench.compare --modes b --loads paced --placements free --seconds 120 --runs 3"
    assert command(found) == f"{said} --sides {TAILRACE}"
    found["sides"] = {name: [one(1.0)] for name in MODES["b"].sides}
    assert command(found) == said
    found["options"] |= {"unmet": 27, "failures": False}
    assert key(found) == "--modes b --loads paced --placements free --unmet 27 --no-failures"
    assert heading(found).startswith("Regrouping: paced, free, 28 policies, 27 of which match nothing, nothing kept")
    found["options"] |= {"failures": True, "spans_per_message": 1, "decision_wait": 20.0}
    told = "1 span a message, 30 policies, 27 of which match nothing, decision wait 20"
    assert heading(found) == f"Regrouping: paced, free, {told}"


def test_a_key_is_a_command_line_that_makes_it_again() -> None:
    found = series(own=[one(1.0)])
    found["options"] |= {"spans_per_message": 10, "percentage": 1.0, "failures": False, "decision_wait": 3.0}
    given = parsed(key(found).split())
    assert (given.modes, given.loads, given.placements) == (["b"], ["paced"], ["free"])
    options = options_of(given)
    assert (options.spans_per_message, options.mix, options.decision_wait) == (10, Mix(1.0, failures=False), 3.0)


def test_a_run_counts_what_came_out(kafka: Kafka) -> None:
    mode, mix = MODES["b"], Mix(percentage=20)
    given = catch_up(kafka, "compare-raw", Load(3_000, 0, 50, logs_per_span=0), mix, PARTITIONS)
    task = task_of(mode, given, PARTITIONS, mix, 2.0)
    figures = run(kafka, mode.sides[TAILRACE](kafka, "compare-own", task), given, task, (), 0.0, print)
    assert figures["kept_traces"] == len(given.truth.kept) > 20
    assert figures["kept_ids"] == digest(given.truth.kept)
    assert figures["kept_spans"] == given.truth.spans
    assert (figures["missing_traces"], figures["surplus_traces"], figures["repeated_spans"]) == (0, 0, 0)
    assert set(figures["cpu_seconds"]) == set(figures["peak_rss_bytes"]) == {"ingest", "sample"}
    assert figures["cpu_per_million"] > 0
    assert figures["kafka_bytes_per_raw_byte"] > 0.2
    assert [measure.COMPILED in names for names in figures["native"].values()] == [COMPILED] * 2
