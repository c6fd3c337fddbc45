"""Write the tables of the documents from bench/results/*.json: `python -m bench.report`.

A table stands between `<!-- bench: NAME -->` and `<!-- end of bench: NAME -->` in any page under docs/; what is
between them is replaced, the rest is left alone. The constants of `tailrace size` are written too (bench/sizing.py).
`--check` writes nothing and exits 1 if a page is not up to date.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import (
    bars,
    budget,
    compare_tables,
    flame,
    history,
    hops,
    loads,
    pairs,
    rare,
    sizing,
    split,
    stages,
    summary,
    sustained,
    throughput_tables,
    transactions,
    window,
)
from bench.measure import load_results
from bench.micro import codecs, encoding, growth, policies
from bench.series import COLUMNS as SERIES_COLUMNS
from bench.series import LABELS, verdict
from bench.series import rows as series_rows
from pipeline.operating.sizing import Load, Measured, lines, size

DOCS = Path(__file__).resolve().parent.parent / "docs"
PLACE = re.compile(r"(<!-- bench: ([a-z]+) -->\n).*?(<!-- end of bench: \2 -->)", re.DOTALL)


def markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; all columns but the first are right-aligned."""
    rule = ["---", *["---:"] * (len(headings) - 1)]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in (headings, rule, *rows))


def provenance(figures: Mapping[str, Any], command: str) -> str:
    """The machine, the date and the command, so that a number can be had again."""
    machine = figures["machine"]
    busy = machine["load_before"]
    return (
        f"{machine['date']}, commit {machine['commit'] or 'unknown'}: {machine['cpu']}, {machine['cores']} cores, "
        f"{machine['memory_gib']:g} GiB, {machine['kernel']}, Python {machine['python']}; "
        f"load average before it {busy:.2f}. `{command}`\n"
    )


def bars_text(*results: Mapping[str, Any]) -> str:
    """For docs/performance.md."""
    return markdown(bars.COLUMNS, bars.rows(*results))


def loads_text(figures: Mapping[str, Any]) -> str:
    """For docs/performance.md."""
    return markdown(loads.COLUMNS, loads.rows(figures))


def transaction_text(figures: Mapping[str, Any]) -> str:
    """For docs/performance.md."""
    options = figures["options"]
    text = (
        f"{options['raw_partitions']} partitions in each of two raw topics (spans, logs), "
        f"{options['spans_per_second']:,.0f} spans/s in messages of {options['spans_per_message']}, "
        f"`commit_interval` {options['commit_interval']:g} s, `decision_wait` {options['decision_wait']:g} s; "
        f"{options['seconds']:.0f} s with load, then {options['idle_seconds']:.0f} s without. One process for "
        "`ingest`, one for `sample`.\n"
    )
    command = (
        f"python -m bench.transactions --partitions {' '.join(map(str, options['partitions']))}"
        f" --spans-per-second {options['spans_per_second']:g} --seconds {options['seconds']:g}"
    )
    return "\n".join(
        (
            text,
            markdown(transactions.LONG, transactions.rows(figures)),
            provenance(figures, command),
        )
    )


def throughput_text(figures: Mapping[str, Any]) -> str:
    """For docs/performance.md."""
    options = figures["options"]
    count = len(figures["runs"])
    text = (
        f"Catch-up of {options['spans']:,} spans in messages of {options['spans_per_message']}, "
        f"{options['raw_partitions']} raw partitions, N = {options['partitions']}, one process per role, "
        f"{'one run' if count == 1 else f'{count} runs: medians, with the extremes in brackets'}.\n"
    )
    if not all(found["exact"] for found in figures["runs"]):
        text += "\n**Not exact: what arrived is not what was made.**\n"
    command = (
        f"python -m bench.throughput --spans {options['spans']} --spans-per-message {options['spans_per_message']}"
        f" --runs {count} --warm-up {options['warm_up_spans']}"
    )
    return "\n".join(
        (
            text,
            markdown(throughput_tables.TOTAL_COLUMNS, throughput_tables.total_rows(figures)),
            markdown(throughput_tables.ROLE_COLUMNS, throughput_tables.role_rows(figures)),
            provenance(figures, command),
        )
    )


def sizing_tables(*results: Mapping[str, Any]) -> str:
    """For docs/how-to/size.md: the constants of `tailrace size`."""
    table = sizing.constants(*results)["constants"]
    rows = [[f"`{c['name']}`", f"{c['value']:,g}", c["unit"], f"`{c['source']}`"] for c in table]
    return markdown(("Constant", "Value", "Unit", "Source"), rows)


def grown_text(figures: Mapping[str, Any]) -> str:
    """For docs/performance-loads.md: what CPU follows the bytes of a span by."""
    runs = [provenance(series, compare_tables.command(series)) for series in figures["series"].values()]
    return "\n".join((markdown(sizing.GROWN_COLUMNS, sizing.grown_rows(figures)), "".join(f"- {run}" for run in runs)))


def size_example(*results: Mapping[str, Any]) -> str:
    """For docs/how-to/size.md: the command and what it prints."""
    known = Measured(sizing.constants(*results))
    measured = (known[name] for name in ("raw_bytes_per_span", "spans_per_trace", "kept_share"))
    load = Load(20_000, 30, 600, 86_400, 3, *measured)
    said = "\n".join(lines(load, size(load, known), known))
    return f"```console\n$ tailrace size --spans-per-second 20000 --decision-wait 30s\n{said}\n```\n"


def compare_text(figures: Mapping[str, Any]) -> str:
    """For docs/performance-series.md and docs/performance-loads.md: each series with its machine, date and command."""
    parts = []
    for series in figures["series"].values():
        parts.append(f"### {compare_tables.heading(series)}\n")
        parts.append(markdown(compare_tables.COLUMNS, compare_tables.rows(series)))
        if ratios := compare_tables.ratios(series):
            parts.append(markdown(compare_tables.RATIO_COLUMNS, ratios))
            parts.append(f"{compare_tables.native(series)}\n")
        if same := compare_tables.kept(series):
            parts.append(f"{same}\n")
        parts.append(provenance(series, compare_tables.command(series)))
    return "\n".join(parts)


def summary_text(figures: Mapping[str, Any]) -> str:
    """For docs/performance.md."""
    return markdown(summary.COLUMNS, summary.rows(figures))


def sweep_text(figures: Mapping[str, Any]) -> str:
    """For docs/performance-loads.md: a table for each mode, then when and how each series was measured."""
    modes: dict[str, list[Mapping[str, Any]]] = {}
    for series in figures["series"].values():
        modes.setdefault(series["title"], []).append(series)
    parts = []
    for title, found in modes.items():
        named = [(", ".join(compare_tables.unusual(series)), series) for series in found]
        parts.append(f"### {title.capitalize()}\n")
        rows = [[load, *row] for load, series in named for row in compare_tables.rows(series)]
        parts.append(markdown(("Load", *compare_tables.COLUMNS), rows))
        runs = [provenance(series, compare_tables.command(series)) for _, series in named]
        parts.append("".join(f"- {run}" for run in runs))
    return "\n".join(parts)


def growing_text(figures: Mapping[str, Any]) -> str:
    """For docs/performance-loads.md."""
    return markdown(loads.GROWTH_COLUMNS, loads.growth_rows(figures))


def sustained_text(figures: Mapping[str, Any]) -> str:
    """For docs/performance.md."""
    options, load = figures["options"], figures["load"]
    text = (
        f"{load['spans']:,} spans and {load['logs']:,} logs in {options['seconds']:g} s, N = {options['partitions']}, "
        f"`decision_wait` {options['decision_wait']:g} s, one process per role.\n"
    )
    command = f"python -m bench.sustained --seconds {options['seconds']:g} --decision-wait {options['decision_wait']:g}"
    rows = markdown(sustained.COLUMNS, sustained.rows(figures))
    return "\n".join((text, rows, f"{sustained.verdict(figures)}\n", provenance(figures, command)))


def hops_text(figures: Mapping[str, Any]) -> str:
    """For docs/performance.md."""
    options = figures["options"]
    text = (
        f"Hops at {options['spans_per_second']:,.0f} spans/s with `commit_interval` {options['commit_interval']:g} s "
        f"and `metrics.interval` {options['metrics_interval']:g} s; logs at {options['logs_per_second']:,.0f}/s of "
        f"each kind with `commit_interval` {options['log_commit_interval']:g} s. "
        f"`decision_wait` {options['decision_wait']:g} s. N = {options['partitions']}.\n"
    )
    command = f"python -m bench.hops --seconds {options['seconds']:g} --partitions {options['partitions']}"
    rows = markdown(hops.COLUMNS, hops.rows(figures))
    return "\n".join((text, rows, f"{hops.cost(figures)}\n", provenance(figures, command)))


def stages_text(figures: Mapping[str, Any]) -> str:
    """For docs/explanation/where-the-latency-comes-from.md."""
    return "\n".join(
        (
            f"N = {figures['options']['partitions']}:\n",
            markdown(stages.STAGE_COLUMNS, stages.stage_rows(hops.stages(figures))),
            "The requests of each transaction:\n",
            markdown(stages.REQUEST_COLUMNS, stages.request_rows(hops.asked(figures))),
        )
    )


def pairs_text(figures: Mapping[str, Any]) -> str:
    """For docs/performance.md."""
    told = [markdown(pairs.COLUMNS, pairs.rows(figures))]
    for name, case in figures["cases"].items():
        options = case["options"]
        command = f"python -m bench.pairs --cases {name} --pairs {options['pairs']} --spans {options['spans']}"
        if options["pace"] != pairs.PACE:
            command += f" --pace {options['pace']:g}"
        told.append(provenance(case, command))
    return "\n".join(told)


def flame_text(figures: Mapping[str, Any]) -> str:
    """For docs/explanation/where-the-time-goes.md."""
    options = figures["options"]
    command = f"python -m bench.flame --spans {options['spans']} --partitions {options['partitions']}"
    tables = (
        markdown(flame.WITH, flame.rows(figures["within"])),
        markdown(flame.ALONE, flame.rows(figures["alone"])),
    )
    return "\n".join((*tables, provenance(figures, command)))


def split_text(figures: Mapping[str, Any]) -> str:
    """For docs/explanation/where-the-time-goes.md."""
    options = figures["options"]
    command = f"python -m bench.split --role {options['role']} --spans {' '.join(map(str, options['spans']))}"
    command += f" --runs {options['runs']}"
    return "\n".join(
        (
            markdown(split.COST_COLUMNS, split.cost_rows(figures)),
            f"{split.verdict(figures)}\n",
            markdown(split.STEP_COLUMNS, split.step_rows(figures)),
            provenance(figures, command),
        )
    )


def rare_text(figures: Mapping[str, Any]) -> str:
    """Rare shapes kept at a budget."""
    command = f"python -m bench.rare --seeds {' '.join(map(str, figures['options']['seeds']))}"
    return "\n".join((markdown(rare.COLUMNS, rare.rows(figures)), provenance(figures, command)))


def budget_text(figures: Mapping[str, Any]) -> str:
    """For docs/performance.md."""
    rows = markdown(budget.COLUMNS, budget.rows(figures))
    command = f"python -m bench.budget --seconds {figures['options']['seconds']:g}"
    return "\n".join((rows, f"{budget.verdict(figures)}\n", provenance(figures, command)))


def history_text(figures: Mapping[str, Any]) -> str:
    """For docs/performance.md."""
    tables = (
        markdown(history.COLUMNS, history.rows(figures)),
        markdown(history.EXPLAIN_COLUMNS, history.explain_rows(figures)),
    )
    return "\n".join((*tables, *(provenance(*run) for run in history.runs(figures))))


def policies_text(figures: Mapping[str, Any]) -> str:
    """For docs/performance-loads.md."""
    return _micro(figures, policies.COLUMNS, policies.rows(figures), "policies")


def growth_text(figures: Mapping[str, Any]) -> str:
    """For docs/performance-loads.md."""
    return _micro(figures, growth.COLUMNS, growth.rows(figures), "growth")


def codecs_text(figures: Mapping[str, Any]) -> str:
    """For docs/explanation/where-the-time-goes.md."""
    return _micro(figures, codecs.COLUMNS, codecs.rows(figures), "codecs")


def _micro(figures: Mapping[str, Any], columns: Sequence[str], rows: Sequence[Sequence[str]], name: str) -> str:
    text = "" if figures["options"]["compiled"] else "**Not compiled.**\n"
    return "\n".join((text, markdown(columns, rows), provenance(figures, f"make bench BENCH=micro.{name}"))).lstrip()


def window_text(figures: Mapping[str, Any]) -> str:
    """For docs/performance.md."""
    text = "" if window.is_met(figures["run"]) else "**The bound did not hold.**\n"
    command = f"python -m bench.window --spans {figures['options']['spans']}"
    return "\n".join((text, markdown(window.COLUMNS, window.rows(figures)), provenance(figures, command))).lstrip()


def encoding_text(figures: Mapping[str, Any]) -> str:
    """For docs/performance.md."""
    options = figures["options"]
    text = (
        f"{options['labels']} labels of 16 random characters for each label set, all of them different; medians of "
        f"{options['rounds']} rounds of process CPU, the strings of each its own.\n"
    )
    if not options["compiled"]:
        text += "\n**Not compiled.**\n"
    return "\n".join(
        (
            text,
            markdown(encoding.COLUMNS, encoding.rows(figures)),
            provenance(figures, "make bench BENCH=micro.encoding"),
        )
    )


def series_text(figures: Mapping[str, Any]) -> str:
    """For docs/performance.md."""
    options = figures["options"]
    return "\n".join(
        (
            f"{options['series']:,} series of {options['metrics']} metrics, each with {LABELS} labels.\n",
            markdown(SERIES_COLUMNS, series_rows(figures)),
            f"{verdict(figures)}\n",
            provenance(figures, "make bench BENCH=series"),
        )
    )


TABLES: dict[str, Callable[..., str]] = {
    "bars": bars_text,
    "loads": loads_text,
    "transactions": transaction_text,
    "throughput": throughput_text,
    "sustained": sustained_text,
    "hops": hops_text,
    "hopsalone": hops_text,
    "stages": stages_text,
    "stagesalone": stages_text,
    "pairs": pairs_text,
    "flame": flame_text,
    "split": split_text,
    "ingest": split_text,
    "rare": rare_text,
    "budget": budget_text,
    "history": history_text,
    "policies": policies_text,
    "growth": growth_text,
    "codecs": codecs_text,
    "window": window_text,
    "summary": summary_text,
    "compare": compare_text,
    "sweep": sweep_text,
    "growing": growing_text,
    "tuning": compare_text,
    "encoding": encoding_text,
    "series": series_text,
    "attributes": grown_text,
    "sizing": sizing_tables,
    "size": size_example,
}
SOURCES = {
    "bars": bars.RESULTS,
    "ingest": (split.RESULTS["ingest"],),
    "loads": loads.RESULTS,
    "summary": summary.RESULTS,
    "growing": loads.RESULTS,
    "stages": ("hops",),
    "hopsalone": ("hops-1",),
    "stagesalone": ("hops-1",),
    "sizing": sizing.RESULTS,
    "size": sizing.RESULTS,
}
"""The results that a table is made of, where they are not those of its own name."""


def filled(page: str, results: Callable[[str], Mapping[str, Any] | None] = load_results) -> str:
    """The page with its tables from the newest results; places whose benchmark has not run stay as they are.

    Raises KeyError when a page names a table that does not exist.
    """

    def table(match: re.Match[str]) -> str:
        begin, name, end = match.groups()
        write = TABLES[name]
        figures = [results(source) for source in SOURCES.get(name, (name,))]
        return match.group() if None in figures else f"{begin}\n{write(*figures)}\n{end}"

    return PLACE.sub(table, page)


def main() -> int:
    """Fill every page, or only look."""
    parser = argparse.ArgumentParser(prog="python -m bench.report", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; exit 1 if a page is not up to date")
    only_look = parser.parse_args().check
    stale = 0
    results = [found for found in map(load_results, sizing.RESULTS) if found is not None]
    if len(results) == len(sizing.RESULTS):
        measured = sizing.text(*results)
        if not sizing.FILE.exists() or sizing.FILE.read_text(encoding="utf-8") != measured:
            stale += 1
            print(f"{sizing.FILE.relative_to(DOCS.parent)}: {'not up to date' if only_look else 'written'}")
            if not only_look:
                sizing.FILE.write_text(measured, encoding="utf-8")
    for page in sorted(DOCS.rglob("*.md")):
        before = page.read_text(encoding="utf-8")
        after = filled(before)
        if after != before:
            stale += 1
            print(f"docs/{page.relative_to(DOCS)}: {'not up to date' if only_look else 'written'}")
            if not only_look:
                page.write_text(after, encoding="utf-8")
    return int(only_look and stale > 0)


if __name__ == "__main__":
    sys.exit(main())
