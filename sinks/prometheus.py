"""Ticks to Prometheus, or anything else that takes remote write 1.0.

A series stays on one lane, and a lane has one request under way: samples of a series arrive in the order of time. A
tick is sent once it is complete. Source: Prometheus remote write specification 1.0.

Prometheus refuses a request as a whole because of one bad sample: its series are halved until it stands alone. After a
crash the successor sends again what may have arrived already; out-of-order and duplicate refusals of such samples are
`already_delivered`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field

import cramjam

from schemas.sample import PackedChunk, TickFooter, TickHeader, find_record
from sinks.contract import Coordinates, Destination, Item, Outcome, Request, SourceRecord
from sinks.http import REFUSING, HttpClient, Rejected, bisect
from sinks.remote_write import defect, time_series
from sinks.settings import Sink

HEADERS = {
    "Content-Type": "application/x-protobuf",
    "Content-Encoding": "snappy",
    "X-Prometheus-Remote-Write-Version": "0.1.0",
}
REFUSING_SAMPLES = REFUSING | {409}  # 409: vmagent's and Thanos' word for a conflict, which no retry mends
# Prometheus: "out of order sample", "duplicate sample for timestamp"; Mimir: "err-mimir-sample-out-of-order",
# "err-mimir-sample-duplicate-timestamp". Not "too old sample": nothing says that such a one arrived before.
DELIVERED_BEFORE = re.compile(r"out[ -]of[ -]order|duplicate[ -](sample|timestamp)|sample-duplicate")


@dataclass(slots=True, init=False)
class SampleItem(Item):
    """One sample: `series` is the `timeseries` field of a WriteRequest that holds nothing else."""

    series: bytes

    def __init__(  # made once for each sample: by position and by hand it takes half the time
        self, origin: Coordinates, series: bytes, lane: int = 0, redelivered: bool = False, defect: str = ""
    ) -> None:
        self.origin, self.series, self.size = origin, series, len(series)
        self.lane, self.redelivered, self.defect = lane, redelivered, defect

    def dead_letter(self) -> bytes:
        """A WriteRequest with this sample, not compressed."""
        return self.series


@dataclass(slots=True)
class _OpenTick:
    """The samples of a tick whose footer has not come."""

    number: int
    items: list[SampleItem] = field(default_factory=list)


class Prometheus(Destination[SampleItem]):
    """Remote write to `endpoint` over `shards` lanes."""

    requests_per_lane = 1

    def __init__(self, settings: Sink) -> None:
        self.lanes = settings.shards
        self._url = settings.urls[0]
        self._http = HttpClient(settings)
        self._ticks: dict[tuple[str, int], _OpenTick] = {}

    async def start(self) -> None:
        """Nothing to install: the first request shows whether the receiver is there."""
        await self._http.open()

    async def close(self) -> None:
        """Close connections."""
        await self._http.close()

    def encode(self, record: SourceRecord) -> list[SampleItem] | None:
        """The samples of a tick when `record` is its footer.

        A tick that another one interrupts never got its footer (a writer without transactions died): it was not
        committed by its writer, the next one has its counts, and its samples are forgotten.
        """
        source = record.topic, record.partition
        content = find_record(record.value)
        tick = self._ticks.get(source)
        if isinstance(content, TickHeader) or tick is None or tick.number != content.number:
            tick = self._ticks[source] = _OpenTick(content.number)
        if isinstance(content, PackedChunk):
            tick.items += self._samples(record, content)
        elif isinstance(content, TickFooter):
            del self._ticks[source]
            return tick.items
        return None

    def _samples(self, record: SourceRecord, chunk: PackedChunk) -> list[SampleItem]:
        items: list[SampleItem] = []
        place = record.topic, record.partition, record.offset, record.timestamp
        for block in chunk.blocks:
            wrong = defect(block.metric, block.shape)
            for lane, series in time_series(block, chunk.time_ms, chunk.since_ms, self.lanes):
                origin = Coordinates(*place, len(items))
                items.append(SampleItem(origin, series, lane, record.redelivered, wrong))
        return items

    def forget(self, topic: str, partition: int) -> None:
        """Drop the tick that is not complete."""
        self._ticks.pop((topic, partition), None)

    def request(self, items: Sequence[SampleItem]) -> Request[SampleItem]:
        """A WriteRequest as a snappy block (not the framed format)."""
        return Request(items, bytes(cramjam.snappy.compress_raw(b"".join(item.series for item in items))))

    async def send(self, request: Request[SampleItem]) -> Outcome:
        """Post it; on 400 and the like find the samples that are to blame."""

        async def attempt(items: Sequence[SampleItem]) -> Outcome | Rejected:
            part = request if len(items) == len(request.items) else self.request(items)
            answer = await self._http.post(self._url, part.body, HEADERS)
            outcome = self._http.outcome(answer, len(items), REFUSING_SAMPLES)
            if isinstance(outcome, Rejected) and len(items) == 1:
                known = request.repeated or items[0].redelivered
                if known and DELIVERED_BEFORE.search(outcome.detail):
                    return Outcome(already_delivered=1)
            return outcome

        return await bisect(request.items, attempt)
