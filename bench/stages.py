"""Where the time of a hop goes: the times of its stages, over everything and over the slowest hundredth of it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from bench.stamped import STEPS, Row, Stamps, find
from bench.testbed import Place

SLOWEST = 0.01
INGEST = (
    "raw record appended → fetched by ingest",
    "→ decoded",
    "→ its transaction began (commit_interval)",
    "→ envelope appended",
)
SAMPLE = (
    "mark appended → all traces of the record are due",
    "→ that mark is visible (its transaction has ended)",
    "→ fetched by sample",
    "→ counted and decided",
    "→ its transaction began (commit_interval)",
    "→ kept records appended",
)
SINK = (
    "→ visible (its transaction has ended)",
    "→ fetched by the sink",
    "→ queued",
    "→ request began (batch.max_age)",
    "→ acknowledged",
)


class Append(NamedTuple):
    """A record: when it was appended (ms), and where."""

    ms: int
    place: Place
    offset: int


class Stages:
    """Milliseconds of each stage, `names` in order, of one record after the other."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = tuple(names)
        self._rows: list[tuple[float, int, list[float]]] = []

    def add(self, moments: Sequence[float], times: int = 1) -> None:
        """When something entered the first stage and left each, in ms since the epoch, and how often."""
        self._rows.append((moments[-1] - moments[0], times, [left - entered for entered, left in pairwise(moments)]))

    def figures(self) -> list[dict[str, Any]]:
        """Each stage with its mean over everything and over the SLOWEST that took longest, in ms."""
        rows = sorted(self._rows, key=lambda row: -row[0])
        left = SLOWEST * sum(times for _, times, _ in rows)
        slowest = []
        for total, times, parts in rows:
            if left <= 0:
                break
            slowest.append((total, min(times, left), parts))
            left -= times
        return [
            {"stage": name, "mean": _mean(rows, stage), "slowest": _mean(slowest, stage)}
            for stage, name in enumerate(self.names)
        ]


def _mean(rows: Sequence[tuple[float, float, list[float]]], stage: int) -> float:
    weight = sum(times for _, times, _ in rows)
    return round(sum(times * parts[stage] for _, times, parts in rows) / weight, 1) if weight else 0.0


def ingested(ingest: Stamps, raw: Append, written: Append) -> list[float] | None:
    """When a raw record left each stage of INGEST; None if nobody noted it."""
    fetched, wrote = find(ingest.fetched.get(raw.place, []), raw.offset), _wrote(ingest, written)
    return None if fetched is None or wrote is None else [raw.ms, fetched[1], fetched[3], wrote[1], wrote[2]]


def sampled(ingest: Stamps, sample: Stamps, due: Append, passable: Append, written: Append) -> list[float] | None:
    """When a kept trace left each stage of SAMPLE; None if nobody noted it.

    `due` is the record whose mark passed its deadline, `passable` that after which the tail could pass its spans.
    """
    visible, wrote = _wrote(ingest, passable), _wrote(sample, written)
    fetched = find(sample.fetched.get(passable.place, []), passable.offset)
    if visible is None or wrote is None or fetched is None:
        return None
    return [due.ms, passable.ms, visible[3], fetched[1], fetched[3], wrote[1], wrote[2]]


def sunk(writer: Stamps, sink: Stamps, raw: Place, offset: int, written: Append) -> list[float] | None:
    """When a log left each stage of SINK, and before them when it was appended as `written`; None: nobody noted it."""
    wrote, fetched = _wrote(writer, written), find(sink.fetched.get(written.place, []), written.offset)
    rows = sink.sent.get(raw, [])
    for row in rows[bisect_left(rows, (offset,)) :]:
        if row[0] != offset:
            break
        if row[1:3] == (written.place[1], written.offset) and wrote is not None and fetched is not None:
            return [wrote[2], wrote[3], fetched[1], *row[3:]]
    return None


def _wrote(stamps: Stamps, record: Append) -> Row | None:
    return _exactly(stamps.written.get(record.place, []), record.offset)


def _exactly(rows: list[Row], offset: int) -> Row | None:
    row = find(rows, offset)
    return row if row is not None and row[0] == offset else None


def requests(stamps: Stamps, began: float, ended: float) -> list[dict[str, Any]]:
    """What each request of its transactions took in ms, how many a second, and how many had to be asked again."""
    found = []
    for name in STEPS:
        rows = [row for row in stamps.steps[name] if began <= row[0] < ended]
        took = sorted(row[1] for row in rows)
        if took:
            quantiles = {key: round(took[int(share * len(took))], 1) for key, share in (("p50", 0.5), ("p99", 0.99))}
            again = sum(row[2] for row in rows)
            found.append({"request": name, "rate": 1000 * len(rows) / (ended - began), "again": again, **quantiles})
    return found


def stage_rows(hops: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[list[str]]:
    """For a table with the columns STAGE_COLUMNS; of each hop one line that names it, then its stages."""
    rows = []
    for hop, stages in hops.items():
        rows.append([hop, *(f"{sum(stage[what] for stage in stages):,.0f}" for what in ("mean", "slowest"))])
        rows += [[stage["stage"], *(f"{stage[what]:,.0f}" for what in ("mean", "slowest"))] for stage in stages]
    return rows


STAGE_COLUMNS = ("Stage", "Mean, ms", "Mean of the slowest 1 %, ms")
REQUEST_COLUMNS = ("Request of a transaction", "Per second", "Asked again", "p50, ms", "p99, ms")
REQUEST_FORMS = {"rate": ",.0f", "again": ",", "p50": ".1f", "p99": ".1f"}


def request_rows(roles: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[list[str]]:
    """For a table with the columns REQUEST_COLUMNS."""
    return [
        [f"{role}: {row['request']}", *(format(row[key], form) for key, form in REQUEST_FORMS.items())]
        for role, requested in roles.items()
        for row in requested
    ]
