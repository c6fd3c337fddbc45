"""What a simulation found, as JSON and in words."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from processors.sampling.stats import Stat
from processors.sampling.trial import Outcome

if TYPE_CHECKING:
    from pipeline.operating.simulate import Report


def document(report: Report) -> dict[str, Any]:
    """What --json prints."""
    comparison = report.comparison
    examples = comparison.examples
    found: dict[str, Any] = {
        "since": _time(report.since),
        "until": _time(report.until),
        "records_since": _time(int(report.first)),
        "incomplete": {topic: first and _time(first) for topic, first in report.incomplete.items()},
        "spans_read": report.spans,
        "seconds": round(report.seconds, 3),
        "spans_per_second": round(report.spans / report.seconds) if report.seconds else 0,
        "new": {"version": report.versions[0]} | _outcome(comparison.new, report.policies[0]),
        "old": {"version": report.versions[1]} | _outcome(comparison.old, report.policies[1]),
        "differs": {name: {"new": new, "old": old} for name, (new, old) in report.differs.items()},
        "lost": {
            "traces": comparison.lost.total(),
            "with_errors": comparison.lost_errors,
            "with_error_logs": comparison.lost_error_logs,
            "by_policy": dict(comparison.lost),
            "examples": examples["lost"],
        },
        "gained": {
            "traces": comparison.gained.total(),
            "by_policy": dict(comparison.gained),
            "examples": examples["gained"],
        },
        "errors_missed_examples": examples["errors"],
        "error_logs_missed_examples": examples["error logs"],
        "live": None,
    }
    if report.live is not None:
        live = report.live
        found["live"] = {
            "same": live.same,
            "different": live.different,
            "of_other_versions": live.others,
            "examples": live.examples,
        }
    return found


def _outcome(outcome: Outcome, policies: Sequence[str]) -> dict[str, Any]:
    totals = outcome.totals
    whats: dict[str, Stat] = {
        "votes": "matched",
        "only": "only",
        "spans": "policy_spans",
        "bytes": "policy_bytes",
    }
    each = {
        name: {"named": outcome.named[name]}
        | {told: totals[what, name] for told, what in whats.items()}
        | ({"dropped": totals["drop_policy", name]} if totals["drop_policy", name] else {})
        for name in policies
    }
    overlap: dict[str, dict[str, int]] = {}
    for (one, other), number in outcome.overlap.items():
        if one != other:
            overlap.setdefault(one, {})[other] = number
    return {
        "traces": outcome.traces,
        "spans": outcome.passed,
        "kept_traces": outcome.kept,
        "kept_spans": outcome.spans,
        "kept_bytes": outcome.bytes,
        "errors": outcome.errors,
        "errors_missed": outcome.errors_missed,
        "error_logs": outcome.error_logs,
        "error_logs_missed": outcome.error_logs_missed,
        "policies": each,
        "overlap": overlap,
    }


def lines(report: Report) -> Iterator[str]:
    """The same for a terminal."""
    told = document(report)
    new, old = told["new"], told["old"]
    spans = f"{new['spans']} spans decided of {told['spans_read']} read"
    yield f"{told['since']} to {told['until']}: {new['traces']} traces, {spans}"
    if told["records_since"] < told["since"]:
        yield f"read from {told['records_since']} on, for traces that had begun before"
    else:
        yield f"the oldest record that Kafka had of it is of {told['records_since']}"
    for topic, first in told["incomplete"].items():
        if first is None:
            rest = "of this period, and older records are gone: traces may lack what it had of them"
        else:
            rest = f"before {first}: older traces are decided without: begin later (--since)"
        yield f"! of {topic} Kafka has nothing {rest}"
    yield ""
    left = max(18, *(len(name) + 1 for name in ["", *told["differs"]]))
    yield f"{'':<{left}}{'new':>14}{'old':>14}"
    yield f"{'policies':<{left}}{new['version']:>14}{old['version']:>14}"
    for name, each in told["differs"].items():
        yield f"{name:<{left}}{each['new']:>14}{each['old']:>14}"
    for label, key in (
        ("kept traces", "kept_traces"),
        ("kept spans", "kept_spans"),
        ("kept bytes", "kept_bytes"),
        ("errors missed", "errors_missed"),
        *([("error logs missed", "error_logs_missed")] if report.reads_logs else []),
    ):
        yield f"{label:<{left}}{new[key]:>14}{old[key]:>14}"
    yield ""
    width = max(map(len, ["policy", *new["policies"]]))
    yield f"{'policy':<{width}}{'named':>12}{'votes':>12}{'only':>12}{'spans':>12}{'bytes':>14}"
    for name, each in new["policies"].items():
        numbers = f"{each['named']:>12}{each['votes']:>12}{each['only']:>12}{each['spans']:>12}{each['bytes']:>14}"
        yield f"{name:<{width}}{numbers}" + (f"  dropped {each['dropped']}" if "dropped" in each else "")
        shared = new["overlap"].get(name, {})
        if shared:
            also = ", ".join(f"{other} {number}" for other, number in sorted(shared.items(), key=lambda item: -item[1]))
            yield f"{'':<{width}}    also voted for: {also}"
    yield ""
    yield from _changes("newly lost", told["lost"])
    if told["lost"]["with_errors"]:
        yield f"    {told['lost']['with_errors']} of them have an error"
    if told["lost"]["with_error_logs"]:
        yield f"    {told['lost']['with_error_logs']} of them have a log of ERROR or above"
    yield from _changes("newly kept", told["gained"])
    if told["errors_missed_examples"]:
        yield f"errors missed by new: {', '.join(told['errors_missed_examples'])}"
    if told["error_logs_missed_examples"]:
        yield f"error logs missed by new: {', '.join(told['error_logs_missed_examples'])}"
    if (live := told["live"]) is not None:
        others = f", {live['of_other_versions']} were decided by other versions" if live["of_other_versions"] else ""
        agreed = f"{live['same']} same, {live['different']} different{others}"
        yield f"old, replayed, against what the workers decided: {agreed}"
        if live["examples"]:
            yield f"    different: {', '.join(live['examples'])}"
    yield f"{told['seconds']:g} s, {told['spans_per_second']} spans/s"


def _changes(label: str, told: dict[str, Any]) -> Iterator[str]:
    by = ", ".join(f"{name} {number}" for name, number in told["by_policy"].items())
    yield f"{label}: {told['traces']} traces" + (f" ({by})" if by else "")
    if told["examples"]:
        yield f"    {', '.join(told['examples'])}"


def _time(time_ms: int) -> str:
    return datetime.datetime.fromtimestamp(time_ms / 1000, datetime.UTC).isoformat(timespec="seconds")
