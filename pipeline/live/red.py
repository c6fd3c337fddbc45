"""Rate, errors and duration per service, out of the span metrics that `sample` counts before any verdict.

Counted are the spans by which a service serves a request (kinds SERVER and CONSUMER), in steps by the clock of the
worker that counted them. Bounded: so many steps, so many services, the rest of them under one name.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pipeline.live.snapshot import Cell, Step
from schemas.point import HistogramValue, PointBatch

STEP_SECONDS = 2
STEPS = 90  # three minutes
MOST_SERVICES = 100
OTHERS = "(other services)"
SERVED = ("SPAN_KIND_SERVER", "SPAN_KIND_CONSUMER")


class Red:
    """The last steps of one worker."""

    def __init__(self) -> None:
        self._steps: deque[Step] = deque(maxlen=STEPS)

    def add(self, batches: Iterable[PointBatch], now: float) -> None:
        """Count a burst's deltas at `now` (Unix seconds)."""
        for batch in batches:
            names = batch.shape.label_names
            if batch.shape.kind != "histogram" or not {"service_name", "span_kind", "status_code"} <= set(names):
                continue
            service, kind, status = map(names.index, ("service_name", "span_kind", "status_code"))
            step = self._step(int(now) // STEP_SECONDS * STEP_SECONDS, list(batch.shape.bounds))
            for labels, value in batch.rows:
                if labels[kind] in SERVED and isinstance(value, HistogramValue):
                    failed = labels[status] == "STATUS_CODE_ERROR"
                    _count(step.services, labels[service], value, failed)

    def steps(self) -> list[Step]:
        """Those in which something was counted, oldest first."""
        return list(self._steps)

    def _step(self, start: int, bounds: list[float]) -> Step:
        if not self._steps or self._steps[-1].start < start:
            self._steps.append(Step(start, bounds, {}))
        return self._steps[-1]


def _count(services: dict[str, Cell], name: str, value: HistogramValue, failed: bool) -> None:
    if name not in services and len(services) >= MOST_SERVICES:
        name = OTHERS
    errors = value.observations if failed else 0
    more = Cell(value.observations, errors, list(value.buckets))
    services[name] = _sum(services[name], more) if name in services else more


def _sum(one: Cell, other: Cell) -> Cell:
    buckets = [a + b for a, b in zip(one.buckets, other.buckets, strict=True)]
    return Cell(one.calls + other.calls, one.errors + other.errors, buckets)


@dataclass(frozen=True, slots=True)
class Service:
    """What is charted of a service: totals of all steps, then one value per step, oldest first.

    `rate` and `errors` are per second; durations are milliseconds, None where there were no calls.
    """

    name: str
    calls: int
    failed: int
    p50_ms: float | None
    p95_ms: float | None
    rate: list[float]
    errors: list[float]
    p95: list[float | None]


def charts(sources: Sequence[Sequence[Step]], now: float) -> list[Service]:
    """The services of all workers up to the last whole step before `now`, the busiest first."""
    last = int(now) // STEP_SECONDS * STEP_SECONDS
    starts = range(last - STEPS * STEP_SECONDS, last + 1, STEP_SECONDS)
    merged: dict[int, dict[str, Cell]] = {start: {} for start in starts}
    bounds: list[float] = []
    for step in (step for steps in sources for step in steps if step.start in merged):
        if bounds and bounds != step.bounds:
            continue  # workers in the middle of a change of buckets_ms
        bounds = step.bounds
        cells = merged[step.start]
        for name, cell in step.services.items():
            cells[name] = _sum(cells[name], cell) if name in cells else cell
    names = {name for cells in merged.values() for name in cells}
    found = [_service(name, [cells.get(name) for cells in merged.values()], bounds) for name in names]
    return sorted(found, key=lambda service: (-service.calls, service.name))


def _service(name: str, cells: Sequence[Cell | None], bounds: Sequence[float]) -> Service:
    total = Cell(0, 0, [0] * (len(bounds) + 1))
    for cell in cells:
        total = total if cell is None else _sum(total, cell)
    return Service(
        name,
        total.calls,
        total.errors,
        quantile(0.5, total.buckets, bounds),
        quantile(0.95, total.buckets, bounds),
        [0.0 if cell is None else cell.calls / STEP_SECONDS for cell in cells],
        [0.0 if cell is None else cell.errors / STEP_SECONDS for cell in cells],
        [None if cell is None else quantile(0.95, cell.buckets, bounds) for cell in cells],
    )


def quantile(q: float, buckets: Sequence[int], bounds: Sequence[float]) -> float | None:
    """As Prometheus' histogram_quantile: linear inside a bucket, the last bound for what lies above it.

    >>> quantile(0.5, [0, 10, 0], [100, 200])
    150.0
    """
    rank = q * sum(buckets)
    below, lower = 0, 0.0
    for count, upper in zip(buckets, bounds, strict=False):
        if count and below + count >= rank:
            return lower + (upper - lower) * (rank - below) / count
        below, lower = below + count, upper
    return bounds[-1] if sum(buckets) else None
