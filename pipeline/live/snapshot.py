"""What one worker says about itself at one moment: its metrics, and what its roles feed to the page.

It is the answer of `/live/snapshot`, which peers and `tailrace top` read; of a worker without the page, `/metrics`
gives the same with less in it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import orjson
from prometheus_client import CollectorRegistry, Metric
from prometheus_client.parser import text_string_to_metric_families

from schemas.errors import Malformed
from schemas.reasons import Reason

PREFIXES = ("tailrace_", "process_")
BUCKETS = "_bucket"  # series of histograms that nothing here shows


class Sample(NamedTuple):
    """One series of /metrics."""

    name: str
    labels: dict[str, str]
    value: float


@dataclass(frozen=True, slots=True)
class Limit:
    """How one limit stands, as in `schemas.sample.LimitState`; `label` "" is the budget of the metric's series."""

    metric: str
    label: str
    limit: int
    active: int
    demand: int
    folded: float
    offenders: list[tuple[str, int]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Cell:
    """Requests of one service in one step; `buckets` are counts by the bounds of the step, the last above all."""

    calls: int
    errors: int
    buckets: list[int]


@dataclass(frozen=True, slots=True)
class Step:
    """Requests by service that were counted within `red.STEP_SECONDS` from `start` (Unix seconds) on."""

    start: int
    bounds: list[float]
    services: dict[str, Cell]


@dataclass(frozen=True, slots=True)
class TraceSummary:
    """One line of the list of kept traces. `start` is Unix seconds.

    `incomplete`: a parent is not here, or not all rows are held. What else of a trace is still to be forwarded nothing
    tells.
    """

    trace_id: str
    policy: str
    service: str
    name: str
    start: float
    duration_ms: float
    spans: int
    logs: int
    error: bool
    incomplete: bool


@dataclass(frozen=True, slots=True)
class Snapshot:
    """`time` is when it was taken (Unix seconds); without the page only `samples` and `limits` are filled."""

    time: float
    samples: list[Sample]
    steps: list[Step] = field(default_factory=list)
    limits: list[Limit] = field(default_factory=list)
    traces: list[TraceSummary] = field(default_factory=list)

    def encode(self) -> bytes:
        """JSON; `decode` is its inverse."""
        return orjson.dumps(self, default=tuple)  # a NamedTuple is nothing that it knows

    @classmethod
    def decode(cls, data: bytes) -> Snapshot:
        """Raises Malformed for anything but a snapshot."""
        try:
            raw: dict[str, Any] = orjson.loads(data)
            return cls(
                float(raw["time"]),
                [Sample(str(name), dict(labels), float(value)) for name, labels, value in raw["samples"]],
                [
                    Step(step["start"], step["bounds"], {name: Cell(**cell) for name, cell in step["services"].items()})
                    for step in raw["steps"]
                ],
                [Limit(**limit) for limit in raw["limits"]],
                [TraceSummary(**trace) for trace in raw["traces"]],
            )
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise Malformed(Reason.MALFORMED, f"not a snapshot of Tailrace: {error!r}") from error


def of_registry(registry: CollectorRegistry) -> list[Sample]:
    """The samples of a worker in this process."""
    return list(_samples(registry.collect()))


def of_text(text: str, time: float) -> Snapshot:
    """What can be known from /metrics. Raises Malformed for text that is no exposition."""
    try:
        samples = list(_samples(text_string_to_metric_families(text)))
    except ValueError as error:
        raise Malformed(Reason.MALFORMED, f"not Prometheus text: {error}") from error
    return Snapshot(time, samples, limits=list(_limits(samples)))


def _samples(families: Iterable[Metric]) -> Iterator[Sample]:
    for family in families:
        if family.name.startswith(PREFIXES):
            for sample in family.samples:
                if not sample.name.endswith((BUCKETS, "_created")):
                    yield Sample(sample.name, dict(sample.labels), float(sample.value))


def _limits(samples: Iterable[Sample]) -> Iterator[Limit]:
    """The limits as pipeline/watching/told_limits.py tells them."""
    told: Mapping[tuple[str, str], dict[str, float]] = defaultdict(dict)
    for name, labels, value in samples:
        key = labels.get("metric", ""), labels.get("label", "")
        if name.startswith(("tailrace_series_", "tailrace_label_")):
            told[key][name.removeprefix("tailrace_series_").removeprefix("tailrace_label_")] = value
        elif name == "tailrace_overflow_points_total":
            told[key]["overflow_points_total"] = value
    for (metric, label), found in told.items():
        limit = found.get("values_limit" if label else "budget")
        if limit is not None:
            kind = "values_" if label else ""
            active, demand = (int(found.get(f"{kind}{what}", 0)) for what in ("active", "demand"))
            yield Limit(metric, label, int(limit), active, demand, found.get("overflow_points_total", 0))
