"""The table of a series of runs, the file of results, and the tables of docs/faults.md.

`python -m tests.faults.report` writes the page from the file.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.measure import machine
from bench.report import markdown
from tests.faults.checker import COLUMNS
from tests.faults.measure import shown
from tests.faults.schedule import KINDS
from tests.repository import ROOT

RESULTS = Path(__file__).with_name("results.json")
PAGE = ROOT / "docs" / "faults.md"
PLACE = re.compile(r"(<!-- faults: ([a-z]+) -->\n).*?(<!-- end of faults: \2 -->)", re.DOTALL)
HEADINGS = ("Seed", "Spans", *(column[0].upper() + column[1:] for column in COLUMNS))


def table(runs: Sequence[Mapping[str, Any]]) -> str:
    """One row for each run, and their sum; allowed duplicates stand behind a plus sign."""
    rows = [[str(run["seed"]), f"{run['spans']:,}", *_cells([run])] for run in runs]
    if len(runs) > 1:
        rows.append([f"all {len(runs)}", f"{sum(run['spans'] for run in runs):,}", *_cells(runs)])
    return markdown(HEADINGS, rows)


def _cells(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    cells = []
    for column in COLUMNS:
        count = sum(run["counts"][column] for run in runs)
        allowed = sum(sum(run["allowed"].get(column, {}).values()) for run in runs)
        cells.append(f"{count:,}" + (f" (+{allowed:,})" if allowed else ""))
    return cells


def aligned(text: str) -> str:
    """A table as it is read in a terminal: columns of one width, without the rule of Markdown."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines()]
    del rows[1]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)


# ---- the file -------------------------------------------------------------------------------------------------


def load() -> dict[str, Any]:
    """The results so far."""
    if not RESULTS.exists():
        return {"runs": []}
    found: dict[str, Any] = json.loads(RESULTS.read_text(encoding="utf-8"))
    return found


def save(**parts: Any) -> None:
    """Put new results into the file: a run replaces that of the same seed, a scenario its own, other parts theirs."""
    results = load()
    measured = machine()
    here = {"commit": measured.pop("commit"), "date": measured.pop("date")}
    load_before = measured.pop("load_before")
    results["machine"] = measured
    for name, value in parts.items():
        if name == "runs":
            fresh = {run["seed"]: {**run, **here, "load_before": load_before} for run in value}
            old = {run["seed"]: run for run in results["runs"]}
            results["runs"] = [run for _, run in sorted((old | fresh).items())]
        elif name == "scenarios":
            fresh = {which: {**here, "load_before": load_before, **found} for which, found in value.items()}
            results["scenarios"] = results.get("scenarios", {}) | fresh
        else:
            results[name] = {**here, "load_before": load_before, **value}
    fresh_file = RESULTS.with_suffix(".new")
    fresh_file.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    fresh_file.replace(RESULTS)


# ---- the page -------------------------------------------------------------------------------------------------


def seeds_text(results: Mapping[str, Any]) -> str:
    """The sum of all runs, what was allowed by cause, and what was done to them."""
    runs = results["runs"]
    allowed: dict[str, Counter[str]] = {}
    faults: Counter[str] = Counter()
    for run in runs:
        faults.update(run["faults"])
        for column, causes in run["allowed"].items():
            allowed.setdefault(column, Counter()).update(causes)
    numbers = sorted(run["seed"] for run in runs)
    whole = numbers == list(range(numbers[0], numbers[-1] + 1))
    seeds = f"{numbers[0]} to {numbers[-1]}" if whole else ", ".join(map(str, numbers))
    ended = sum(len(run["ended_by_themselves"]) for run in runs)
    text = f"{len(runs)} runs (seeds {seeds}): {sum(run['spans'] for run in runs):,} spans of "
    text += f"{sum(run['traces'] for run in runs):,} traces, {sum(run['kept'] for run in runs):,} of them to be kept, "
    text += f"and {sum(run['logs'] for run in runs):,} logs; {sum(run['late'] for run in runs):,} traces came late. "
    times = "once" if ended == 1 else f"{ended} times"
    text += f"Workers ended by themselves {times} and were started again"
    stuck = sum(run.get("broker_unstuck", 0) for run in runs)
    text += f", the broker {stuck} times because its group coordinator was stuck.\n" if stuck else ".\n"
    cells = zip(COLUMNS, _cells(runs), strict=True)
    parts = [text, markdown(("", "Found (+ allowed)"), [[column, cell] for column, cell in cells])]
    causes = [
        [column, cause, f"{n:,}"] for column, found in sorted(allowed.items()) for cause, n in found.most_common()
    ]
    if causes:
        parts.append(markdown(("Allowed", "Cause", "Copies"), causes))
    parts.append(markdown(("Fault", "What it is", "Times"), [[k, KINDS[k].means, str(faults[k])] for k in KINDS]))
    dates = sorted({run["date"] for run in runs})
    commits = sorted({run["commit"] for run in runs})
    on = results["machine"]
    when = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    parts.append(f"{when}, commits {', '.join(commits)}: {on['cpu']}, {on['cores']} cores, {on['memory_gib']:g} GiB.\n")
    return "\n".join(parts)


def measurements_text(results: Mapping[str, Any]) -> str:
    """What was measured, beside its bar."""
    measured = results["measurements"]
    told = f"{measured['date']}, commit {measured['commit']}; load average before it {measured['load_before']:.2f}.\n"
    return _bars(measured["figures"]) + "\n" + told


def scenario_table(name: str, found: Mapping[str, Any]) -> str:
    """What the check counted, a row for everybody who took part."""
    rows = [[whose, *_cells([row])] for whose, row in found["rows"].items()]
    return markdown((name, *HEADINGS[2:]), rows)


def scenarios_text(results: Mapping[str, Any]) -> str:
    """Each scenario: what was done, what the check counted, figures beside their bars."""
    parts = []
    for name, found in results["scenarios"].items():
        facts = found["facts"]
        made = f"{facts['spans']:,} spans of {facts['traces']:,} traces, {facts['kept']:,} of them to be kept"
        parts += [f"**{name}**: {facts['told']}. {made}.\n", scenario_table(name, found)]
        if found["measured"]:
            parts.append(_bars(found["measured"]))
        parts.append(f"{found['date']}, commit {found['commit']}; load average before it {found['load_before']:.2f}.\n")
    return "\n".join(parts)


def _bars(figures: Sequence[Mapping[str, Any]]) -> str:
    rows = [
        [m["what"], f"{shown(m['value'])} {m['unit']}", m["bar"], "yes" if m["holds"] else "**no**"] for m in figures
    ]
    return markdown(("", "Measured", "Bar", "Holds"), rows)


def simulation_text(results: Mapping[str, Any]) -> str:
    """How many histories were simulated."""
    told = results["simulation"]
    return f"{told['histories']:,} histories in {told['seconds']:,.0f} s, {told['date']}, commit {told['commit']}.\n"


def guards_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """What each guard prevents, the first history that fails without it, and the check that fails."""
    cells = [[row["guard"], row["without"], str(row["seed"]), row["check"] or "**not noticed**"] for row in rows]
    return markdown(("Taken away", "Then", "Seed", "Noticed by"), cells)


def guards_text(results: Mapping[str, Any]) -> str:
    """The mutation run."""
    told = results["guards"]
    return f"{guards_table(told['rows'])}\n{told['date']}, commit {told['commit']}.\n"


TEXTS = {
    "seeds": ("runs", seeds_text),
    "measurements": ("measurements", measurements_text),
    "scenarios": ("scenarios", scenarios_text),
    "guards": ("guards", guards_text),
    "simulation": ("simulation", simulation_text),
}


def filled(page: str, results: Mapping[str, Any]) -> str:
    """The page with its tables; what has not been run is left as it is."""

    def place(match: re.Match[str]) -> str:
        begin, name, end = match.groups()
        needs, text = TEXTS[name]
        return f"{begin}\n{text(results)}\n{end}" if results.get(needs) else match.group()

    return PLACE.sub(place, page)


def main() -> int:
    """Write the page."""
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), load()), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
