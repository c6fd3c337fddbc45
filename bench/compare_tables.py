"""The tables of bench.compare, for the terminal and for docs/performance.md."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import Any

from bench.contestants import LEAN, MODES, TAILRACE
from bench.measure import COMPILED, middle
from bench.verdicts import Mix

COLUMNS = (
    "Side",
    "CPU-s per million spans",
    "Broker's",
    "Start-up, CPU-s",
    "Peak RSS, MiB",
    "Kafka bytes per raw byte",
    "Spans/s, or behind, s",
    "Runs that kept the same traces",
)
RATIO_COLUMNS = ("", "Against", "CPU", "CPU, broker included", "Peak RSS")
MIB = 1 << 20
# Of bench.compare's command line: what a command need not say.
DEFAULTS = {
    "spans_per_message": 200,
    "partitions": 4,
    "percentage": 5.0,
    "unmet": 0,
    "decision_wait": None,
    "spans_per_trace": 12,
    "more_attributes": 0,
    "live": 0,
}

Run = Mapping[str, Any]


def is_whole(run: Run) -> bool:
    """Whether a run kept the traces that the policies keep, each with all of its spans, and no other."""
    return not run["missing_traces"] and not run["surplus_traces"]


def cpu(run: Run) -> float:
    """Of the side's processes."""
    return float(run["cpu_per_million"])


def cpu_with_broker(run: Run) -> float:
    """And the broker's, its idle use subtracted."""
    return cpu(run) + float(run["broker_cpu_per_million"])


def rss(run: Run) -> float:
    """The peaks of the side's processes, added."""
    return float(sum(run["peak_rss_bytes"].values())) / MIB


def _pace(run: Run) -> float:
    return float(run["spans_per_second"])


def _behind(run: Run) -> float:
    return float(run["drained_seconds"])


def native(series: Mapping[str, Any]) -> str:
    """What Tailrace's workers ran as native code, from their memory maps."""
    runs = series["sides"].get(TAILRACE, [])
    found = {name for run in runs for names in run["native"].values() for name in names}
    compiled = bool(runs) and all(COMPILED in names for run in runs for names in run["native"].values())
    loop = "uvloop" if "loop" in found else "asyncio's loop"
    return f"Tailrace's hot modules compiled: {'yes' if compiled else '**no**'}; {loop}." if runs else ""


def kept(series: Mapping[str, Any]) -> str:
    """The traces of the runs that count, all sides': one number and one digest of their ids (bench/verdicts.py) if they
    are the same. "" for results that have no digest."""
    whole = [run for runs in series["sides"].values() for run in runs if is_whole(run) and "kept_ids" in run]
    found = sorted({(run["kept_traces"], run["kept_ids"]) for run in whole})
    sets = " or ".join(f"{traces:,} traces, ids `{ids}`" for traces, ids in found)
    return f"Kept in each of the {len(whole)} runs that count: {sets}." if whole else ""


def rows(series: Mapping[str, Any]) -> list[list[str]]:
    """The columns `COLUMNS` of each side: of the runs that kept what they should, or dashes and what was lost."""
    return [_row(name, runs) for name, runs in series["sides"].items()]


def _row(name: str, runs: Sequence[Run]) -> list[str]:
    whole = [run for run in runs if is_whole(run)]

    def shown(find: Callable[[Run], float], form: str) -> str:
        return _shown(whole, find, form)

    verdict = f"{len(whole)} of {len(runs)}"
    if lossy := [run for run in runs if not is_whole(run)]:
        lost = [f"{run['missing_traces']:,}" for run in lossy]
        verdict += f"; lost or cut in the others: {', '.join(lost)} traces"
    return [
        name,
        shown(cpu, ".2f"),
        shown(lambda run: run["broker_cpu_per_million"], ".2f"),
        shown(lambda run: sum(run["start_up_cpu_seconds"].values()), ".2f"),
        shown(rss, ".0f"),
        shown(lambda run: run["kafka_bytes_per_raw_byte"], ".2f"),
        shown(_pace, ",.0f") if whole and whole[0]["drained_seconds"] is None else shown(_behind, ".1f"),
        verdict,
    ]


def middles(series: Mapping[str, Any], side: str, find: Callable[[Run], float], form: str) -> str:
    """A figure of the runs of one side that count, – if none does."""
    return _shown([run for run in series["sides"].get(side, []) if is_whole(run)], find, form)


def _shown(whole: Sequence[Run], find: Callable[[Run], float], form: str) -> str:
    return middle([find(run) for run in whole], form) if whole else "–"


def ratio(series: Mapping[str, Any], own: str, other: str, find: Callable[[Run], float]) -> float | None:
    """How many times the median of `own` that of `other` is; None if one of them has no run that counts."""
    sides = ([find(run) for run in series["sides"].get(name, []) if is_whole(run)] for name in (other, own))
    theirs, ours = sides
    return median(theirs) / median(ours) if theirs and ours else None


def times(series: Mapping[str, Any], own: str, other: str, find: Callable[[Run], float]) -> str:
    """The `ratio` in a table, – where there is none."""
    found = ratio(series, own, other, find)
    return "–" if found is None else f"{found:.1f}×"


def ratios(series: Mapping[str, Any]) -> list[list[str]]:
    """The columns `RATIO_COLUMNS`: each of Tailrace's sides against each other one, if both have runs that count."""
    return [
        [own, other, *(times(series, own, other, find) for find in (cpu, cpu_with_broker, rss))]
        for own in (TAILRACE, LEAN)
        for other in series["sides"]
        if other not in (TAILRACE, LEAN) and ratio(series, own, other, cpu) is not None
    ]


def _unusual(options: Mapping[str, Any]) -> list[str]:
    """Names; older results do not have all of them."""
    return [name for name, usual in DEFAULTS.items() if options.get(name, usual) != usual]


def key(series: Mapping[str, Any]) -> str:
    """The options of bench.compare that tell this series from others."""
    options = series["options"]
    words = ["--modes", series["mode"], "--loads", series["load"], "--placements", series["placement"]]
    for name in _unusual(options):
        words += [f"--{name.replace('_', '-')}", f"{options[name]:.12g}"]
    return " ".join(words if options["failures"] else [*words, "--no-failures"])


def command(series: Mapping[str, Any]) -> str:
    """How to have it again."""
    options = series["options"]
    size = f"--seconds {options['seconds']:g}" if series["load"] == "paced" else f"--spans {options['spans']}"
    size = "" if options.get("live") else f" {size}"
    sides = [name for name in MODES[series["mode"]].sides if name in series["sides"]]
    chosen = "" if len(sides) == len(MODES[series["mode"]].sides) else f" --sides {shlex.join(sides)}"
    return f"python -m bench.compare {key(series)}{size} --runs {options['runs']}{chosen}"


def _counted(count: int, what: str, of: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'} {of}"


def unusual(series: Mapping[str, Any]) -> list[str]:
    """What of its load and its policies is not as usual, in words."""
    options = DEFAULTS | series["options"]
    messages, percentage, unmet = (options[name] for name in ("spans_per_message", "percentage", "unmet"))
    policies = len(Mix(percentage, options["failures"], unmet).policies())
    words = {
        "spans_per_message": _counted(messages, "span", "a message"),
        "spans_per_trace": _counted(options["spans_per_trace"], "span", "a trace"),
        "more_attributes": f"{options['more_attributes']} more attributes a span",
        "live": f"{options['live']:,} traces undecided at once",
        "percentage": f"{percentage:g} % of all kept",
        "unmet": f"{policies} policies, {unmet} of which match nothing",
    }
    different = _unusual(options)
    told = [words[name] if name in words else f"{name.replace('_', ' ')} {options[name]:g}" for name in different]
    return told if options["failures"] else [*told, "nothing kept for an error or a long duration"]


def heading(series: Mapping[str, Any]) -> str:
    """What it is, with what is not as usual."""
    return ": ".join((series["title"].capitalize(), ", ".join((series["load"], series["placement"], *unusual(series)))))
