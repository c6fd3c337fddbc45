"""What the roles of a worker feed to its page: a `Watch` is there only if the page is on, and never fails a role."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable

from pipeline import telemetry
from pipeline.live.recent import KeptTrace, Recent
from pipeline.live.red import Red
from pipeline.live.snapshot import Limit, Snapshot, TraceSummary, of_registry
from pipeline.live.waterfall import Waterfall, waterfall
from pipeline.watching.told_limits import standing
from schemas.envelope import Envelope
from schemas.ids import trace_key
from schemas.point import PointBatch
from schemas.sample import SeriesBlock

MOST_LIMITS = 100  # rows of the table of limits; `tailrace cardinality` shows all
MOST_OFFENDERS = 5


class Watch:
    """The recent past of one worker. `payloads`: whether values that came in may be shown."""

    def __init__(
        self,
        payloads: bool,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.payloads, self._clock, self._monotonic = payloads, clock, monotonic
        self._recent, self._red = Recent(), Red()
        self._limits: dict[int, list[Limit]] = {}
        self._summaries: dict[int, tuple[tuple[int, int], TraceSummary]] = {}

    def committed(self, points: Iterable[PointBatch], spans: Iterable[bytes], logs: Iterable[bytes]) -> None:
        """A transaction of `sample` is durable: what it counted, and the kept envelopes in it."""
        self._red.add(points, self._clock())
        now = self._monotonic()
        for value in spans:
            self._recent.add("spans", Envelope.decode(value), now)
        for value in logs:
            self._recent.add("logs", Envelope.decode(value), now)

    def ticked(self, partition: int, blocks: Iterable[SeriesBlock]) -> None:
        """A tick of `aggregate` is durable; without blocks the partition is another worker's."""
        most = MOST_OFFENDERS if self.payloads else 0
        limits = [
            Limit(metric, s.label, s.limit, s.active, s.demand, s.folded, list(s.offenders[:most]))
            for metric, s in standing(blocks)
        ]
        self._limits[partition] = sorted(limits, key=_fullness)[:MOST_LIMITS]

    def snapshot(self) -> Snapshot:
        """Everything as of now."""
        limits = sorted((limit for limits in self._limits.values() for limit in limits), key=_fullness)
        samples = of_registry(telemetry.REGISTRY)
        return Snapshot(self._clock(), samples, self._red.steps(), limits[:MOST_LIMITS], self._traces())

    def trace(self, trace_id: bytes) -> Waterfall | None:
        """A trace that is held, whole."""
        found = self._recent.get(trace_key(trace_id))
        return None if found is None else waterfall(found, self.payloads)

    def _traces(self) -> list[TraceSummary]:
        """Newest first; worked out again only for traces that have grown."""
        fresh: dict[int, tuple[tuple[int, int], TraceSummary]] = {}
        for key, trace in self._recent.items():
            known = self._summaries.get(key)
            if known is not None and known[0] == _grown(trace):
                fresh[key] = known
            elif (found := waterfall(trace, payloads=False)) is not None:
                fresh[key] = _grown(trace), found.summary
        self._summaries = fresh
        return [summary for _, summary in fresh.values()]


def _grown(trace: KeptTrace) -> tuple[int, int]:
    return len(trace.spans) + len(trace.logs), trace.more


def _fullness(limit: Limit) -> tuple[bool, float]:
    """What folds comes first, then the fullest."""
    return not limit.folded, -limit.active / max(1, limit.limit)
