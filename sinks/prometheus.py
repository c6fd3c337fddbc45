"""Ticks to Prometheus, or anything else that takes remote write 1.0.

A series stays on one lane, and a lane has one request under way: samples of a series arrive in the order of time. A
tick is sent once it is complete. Source: Prometheus remote write specification 1.0.

Samples are queued in slices of some hundred. Prometheus refuses a request as a whole because of one bad sample: which
one it is, sinks/refused_samples.py finds out. But first of all whether it is the samples: Prometheus says 400 to any
request at the path of its queries, say, and so does a server of TLS that is asked without.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from itertools import groupby

from schemas.formats.write_request import Slices
from schemas.sample import PackedChunk, TickFooter, TickHeader, find_record
from sinks.contract import Coordinates, Destination, Outcome, Request, SourceRecord
from sinks.http import REFUSING, HttpClient, Rejected
from sinks.receiver import Receiver, Reply
from sinks.refused_samples import RefusedSeries, Search
from sinks.remote_write import defect, write_series
from sinks.sample_item import SampleItem, write_request
from sinks.settings import Sink

HEADERS = {
    "Content-Type": "application/x-protobuf",
    "Content-Encoding": "snappy",
    "X-Prometheus-Remote-Write-Version": "0.1.0",
}
REFUSING_SAMPLES = REFUSING | {409}  # 409: vmagent's and Thanos' word for a conflict, which no retry mends
# Prometheus before 3.9 says 500 for native histograms that it is not told to take (--enable-feature), and before 3.7
# for those that it finds wrong.
OF_HISTOGRAMS = re.compile(r"native histograms are disabled|histogram(?:'s| has| spans) ")

NOTHING = write_request(())  # which every receiver takes, and stores nothing

# A request takes whole slices: it is full to 7/8 at least.
SLICES_PER_REQUEST = 8
MOST_PER_SLICE = 1024


@dataclass(slots=True)
class _OpenTick:
    """The items of a tick whose footer has not come."""

    number: int
    items: list[SampleItem] = field(default_factory=list)


class Prometheus(Destination[SampleItem]):
    """Remote write to `endpoint` over `shards` lanes. `clock` gives seconds."""

    requests_per_lane = 1

    def __init__(self, settings: Sink, clock: Callable[[], float] = time.monotonic) -> None:
        self.lanes = settings.shards
        batch = settings.batch
        self._most = max(1, min(batch.max_items // SLICES_PER_REQUEST, MOST_PER_SLICE))
        self._most_bytes = batch.max_bytes // SLICES_PER_REQUEST
        self._url = settings.urls[0]
        self._http = HttpClient(settings)
        self._ticks: dict[tuple[str, int], _OpenTick] = {}
        self._refused = RefusedSeries(clock)
        self._receiver = Receiver(NOTHING, "is the endpoint that of remote write?")

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
        slices = Slices(self.lanes, self._most, self._most_bytes)
        for wrong, blocks in groupby(chunk.blocks, lambda block: defect(block.metric, block.shape)):
            for block in blocks:
                write_series(block, slices, chunk.time_ms, chunk.since_ms)
            for lane, series, ends, numbers in slices.cut():
                item = SampleItem(
                    origin=Coordinates(*place, numbers[0]),
                    size=len(series),
                    rows=len(ends),
                    lane=lane,
                    redelivered=record.redelivered,
                    defect=wrong,
                    series=series,
                    ends=ends,
                    numbers=numbers,
                )
                items.append(item)
        return items

    def forget(self, topic: str, partition: int) -> None:
        """Drop the tick that is not complete."""
        self._ticks.pop((topic, partition), None)

    def request(self, items: Sequence[SampleItem]) -> Request[SampleItem]:
        """A WriteRequest with these samples."""
        return Request(items, write_request(items))

    async def send(self, request: Request[SampleItem]) -> Outcome:
        """Post it; on 400 and the like find the samples that are to blame."""
        return await Search(request, self._refused, self._post).outcome()

    async def _post(self, body: bytes, rows: int) -> Outcome | Rejected:
        return await self._receiver.sent(partial(self._ask, rows), body, rows)

    async def _ask(self, rows: int, body: bytes) -> Reply:
        answer = await self._http.post(self._url, body, HEADERS)
        if answer.status == HTTPStatus.INTERNAL_SERVER_ERROR and OF_HISTOGRAMS.search(answer.text):
            return Reply(answer.status, answer.rejected, answer.ok)
        return Reply(answer.status, self._http.outcome(answer, rows, REFUSING_SAMPLES), answer.ok)
