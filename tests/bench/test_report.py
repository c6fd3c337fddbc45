"""The tables of the documents come from the committed results."""

from __future__ import annotations

import json
import re
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from bench import sizing, transactions
from bench import throughput_tables as throughput
from bench.report import DOCS, PLACE, SOURCES, TABLES, filled, markdown
from tests.bench.results import MACHINE
from tests.repository import ROOT, committed

PAGES = sorted(DOCS.rglob("*.md"))
LINKED = re.compile(r"\]\((performance-[\w-]+\.md|explanation/[\w-]+\.md)")
WINDOW = {
    "transactions": 12.0,
    "control_records": 50.4,
    "coordinator_records": 75.0,
    "broker_cpu": 0.2,
    "client_cpu": {"ingest": 0.08, "sample": 0.07},
    "spans": 1999.6,
    "spans_per_envelope": 125.2,
}
TRANSACTIONS = {
    "machine": MACHINE,
    "options": {
        "partitions": [4],
        "raw_partitions": 4,
        "spans_per_second": 2000.0,
        "spans_per_message": 50,
        "seconds": 30.0,
        "idle_seconds": 20.0,
        "commit_interval": 1.0,
        "decision_wait": 30.0,
    },
    "cases": [
        {"partitions": 4, "loaded": WINDOW, "idle": WINDOW | {"spans": 0.0, "spans_per_envelope": None}},
    ],
}


def test_the_list_of_benchmarks_has_each_module_that_runs() -> None:
    """`stamped` and `timed` are workers, which benchmarks start."""
    listed = (
        (ROOT / "docs/performance.md").read_text(encoding="utf-8").partition("\n## The commands\n")[2].split("```")[1]
    )
    named = {"compare", *re.findall(r"(?:BENCH=|-m bench\.)([\w.]+)", listed)}
    runs = [path for path in committed("bench/*.py") if '__name__ == "__main__"' in path.read_text(encoding="utf-8")]
    modules = {".".join(path.relative_to(ROOT / "bench").with_suffix("").parts) for path in runs}
    assert named == modules - {"stamped", "timed"}
    assert all((ROOT / "bench/results" / name).is_file() for name in re.findall(r"[\w-]+\.json\b", listed))


def named(page: Path) -> list[str]:
    """The tables of a page."""
    return [name for _, name, _ in PLACE.findall(page.read_text(encoding="utf-8"))]


def one_run(rate: float) -> dict[str, Any]:
    names = [*throughput.ROLES, "broker"]
    return {
        "load": {"spans": 1000, "logs": 60, "traces": 80},
        "spans_per_second": rate,
        "stage_seconds": dict.fromkeys(throughput.ROLES, 3.0),
        "kept_spans": 90,
        "cpu_seconds": dict.fromkeys(names, 1.0),
        "cpu_seconds_per_million_spans": dict.fromkeys(names, 5.0),
        "start_up_cpu_seconds": dict.fromkeys(throughput.ROLES, 0.7),
        "idle_cpu": {"sample": 0.01, "broker": 0.03},
        "peak_rss_bytes": dict.fromkeys(names, 100 << 20),
        "kafka_bytes": {"-raw-spans": 50_000, "-raw-logs": 9_000},
        "kafka_bytes_per_raw_byte": 1.25,
        "exact": True,
    }


def throughput_figures(*rates: float) -> dict[str, Any]:
    options = {"spans": 1000, "spans_per_message": 200, "raw_partitions": 4, "partitions": 4, "warm_up_spans": 0}
    return {"machine": MACHINE, "options": options, "runs": [one_run(rate) for rate in rates]}


def test_every_place_names_a_table_and_performance_leads_to_all_results() -> None:
    """Each is once on that page or on one that it links to; those made of other results are where they are needed."""
    assert {name for page in PAGES for name in named(page)} == set(TABLES)
    performance = DOCS / "performance.md"
    linked = set(LINKED.findall(performance.read_text(encoding="utf-8")))
    places = Counter(name for page in (performance, *(DOCS / page for page in linked)) for name in named(page))
    own = set(TABLES) - set(SOURCES)
    assert {name: places[name] for name in own} == dict.fromkeys(own, 1)


def test_the_figures_in_short_are_those_of_the_goals() -> None:
    text = (DOCS / "performance.md").read_text(encoding="utf-8")
    short, _, after = text.partition("\n## In short\n")[2].partition("\n## Goals\n")
    figures = re.compile(r"\d+\.\d×")
    assert figures.findall(short)
    assert set(figures.findall(short)) <= set(figures.findall(after.partition("<!-- end of bench: bars -->")[0]))


def test_the_constants_of_size_are_those_of_the_committed_results() -> None:
    results = (json.loads(_at_head(f"bench/results/{name}.json") or "{}") for name in sizing.RESULTS)
    assert _at_head("pipeline/operating/measured.json") == sizing.text(*results), "run `python -m bench.report`"


def test_only_what_is_between_the_marks_is_replaced() -> None:
    page = "before\n<!-- bench: transactions -->\nold\n<!-- end of bench: transactions -->\nafter\n"
    new = filled(page, lambda _: TRANSACTIONS)
    assert new.startswith("before\n<!-- bench: transactions -->\n")
    assert new.endswith("<!-- end of bench: transactions -->\nafter\n")
    assert "old" not in new
    assert "| 4 | 2,000 | 12.0 | 50 | 75 | 0.200 | 0.080 | 0.070 | 125 |" in new
    assert "| 4 | 0 | 12.0 | 50 | 75 | 0.200 | 0.080 | 0.070 | – |" in new
    assert "2026-01-01 00:00 UTC, commit abc: A, 2 cores, 8 GiB" in new
    assert filled(new, lambda _: TRANSACTIONS) == new
    assert filled(page, lambda _: None) == page


def test_a_place_for_nothing_is_an_error() -> None:
    page = "<!-- bench: nothing -->\n<!-- end of bench: nothing -->"
    with pytest.raises(KeyError):
        filled(page, lambda _: TRANSACTIONS)


def test_several_runs_show_median_and_extremes() -> None:
    once = markdown(throughput.TOTAL_COLUMNS, throughput.total_rows(throughput_figures(100)))
    assert "by Jaeger and Elasticsearch | 100 |" in once
    several = markdown(throughput.TOTAL_COLUMNS, throughput.total_rows(throughput_figures(300, 100, 200)))
    assert "by Jaeger and Elasticsearch | 200 (100 to 300) |" in several
    assert "| Raw bytes per span in Kafka | 59 (59 to 59) |" in several


def test_rows_have_a_cell_for_every_column() -> None:
    assert {len(row) for row in throughput.role_rows(throughput_figures(1, 2))} == {len(throughput.ROLE_COLUMNS)}
    assert {len(row) for row in transactions.rows(TRANSACTIONS)} == {len(transactions.LONG), len(transactions.SHORT)}


def test_a_run_that_was_not_exact_says_so() -> None:
    figures = throughput_figures(1)
    page = "<!-- bench: throughput -->\n<!-- end of bench: throughput -->"
    assert "Not exact" not in filled(page, lambda _: figures)
    figures["runs"][0]["exact"] = False
    assert "Not exact" in filled(page, lambda _: figures)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(DOCS)))
def test_committed_pages_show_the_committed_results(page: Any) -> None:
    """As of HEAD, so that a benchmark somebody has just run does not count."""

    def results(name: str) -> Any:
        found = _at_head(f"bench/results/{name}.json")
        return None if found is None else json.loads(found)

    committed = _at_head(str(page.relative_to(ROOT)))
    if committed is not None:
        assert filled(committed, results) == committed


def _at_head(path: str) -> str | None:
    found = subprocess.run(["git", "show", f"HEAD:{path}"], cwd=ROOT, capture_output=True, text=True)
    return found.stdout if found.returncode == 0 else None
