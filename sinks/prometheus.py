"""Ticks to Prometheus, or anything else that takes remote write 1.0.

A series stays on one lane, and a lane has one request under way: samples of a series arrive in the order of time. A
tick is sent once it is complete. Source: Prometheus remote write specification 1.0.

Samples are queued in slices of some hundred. Prometheus refuses a request as a whole because of one bad sample: its
samples are halved until it stands alone. Once the times of those say that the others are too old as well, these are
refused unsent: a backlog from before the receiver's window would take a request for each of its samples. After a crash
the successor sends again what may have arrived already; out-of-order and duplicate refusals of such samples are
`already_delivered`.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from itertools import chain, groupby
from math import inf

import cramjam

from schemas.formats.write_request import Slices
from schemas.sample import PackedChunk, TickFooter, TickHeader, find_record
from sinks.contract import Coordinates, Destination, Item, Outcome, Refusal, Request, SourceRecord
from sinks.http import REFUSING, HttpClient, Rejected, bisect
from sinks.protobuf import varint_before
from sinks.remote_write import defect, write_series
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
# Prometheus, Thanos: "out of bounds", alone or with ": timestamp is too far in the future"; Mimir and Cortex: "its
# timestamp is too old". The receiver looks at the sample's time alone.
OUT_OF_BOUNDS = re.compile(r"out of bounds(?!.*future)|its timestamp is too old")
# Prometheus: "too old sample"; Mimir: "beyond the out-of-order time window". A series that is new would be taken, if it
# is not out of bounds: so many others of a request have to be refused in a row.
TOO_OLD = re.compile(r"too old sample|beyond the out-of-order")
MANY_TOO_OLD = 32
# Prometheus before 3.9 says 500 for native histograms that it is not told to take (--enable-feature), and before 3.7
# for those that it finds wrong.
OF_HISTOGRAMS = re.compile(r"native histograms are disabled|histogram(?:'s| has| spans) ")

# A request takes whole slices: it is full to 7/8 at least.
SLICES_PER_REQUEST = 8
MOST_PER_SLICE = 1024


@dataclass(slots=True, kw_only=True)
class SampleItem(Item):
    """Samples of one lane of a record: `series` are `timeseries` fields of a WriteRequest that holds nothing else.

    Sample i ends at `ends[i]`, and is number `numbers[i]` of its record.
    """

    series: bytes
    ends: array[int]
    numbers: array[int]

    def dead_letter(self, *others: SampleItem) -> bytes:
        """A WriteRequest with these samples, not compressed."""
        return b"".join(item.series for item in (self, *others))

    def singles(self) -> list[SampleItem]:
        """An item for each sample."""
        found, start = [], 0
        for end, number in zip(self.ends, self.numbers, strict=True):
            size = end - start
            alone = replace(
                self,
                origin=replace(self.origin, index=number),
                size=size,
                rows=1,
                series=self.series[start:end],
                ends=array("I", (size,)),
                numbers=array("I", (number,)),
            )
            found.append(alone)
            start = end
        return found

    def times(self) -> list[int]:
        """Milliseconds since the Unix epoch of each sample: with them, as a varint, its series ends."""
        return [varint_before(self.series, end) for end in self.ends]


@dataclass(slots=True)
class _OpenTick:
    """The items of a tick whose footer has not come."""

    number: int
    items: list[SampleItem] = field(default_factory=list)


class _TooOld:
    """Up to which time (ms) all samples of a request are too old, and what the receiver said of the last of them."""

    def __init__(self) -> None:
        self.until, self.detail = -inf, ""
        self._in_a_row = 0  # refused for their time, unless their series is new

    def refused(self, time_ms: int, detail: str, known: bool) -> None:
        """A sample that stood alone; of one that is `known` a newer one may have been delivered before."""
        self._in_a_row += 1 if TOO_OLD.search(detail) and not known else 0
        if OUT_OF_BOUNDS.search(detail) or self._in_a_row >= MANY_TOO_OLD:
            self.until, self.detail = max(self.until, time_ms), detail

    def taken(self) -> None:
        """Some that were sent between."""
        self._in_a_row = 0


class Prometheus(Destination[SampleItem]):
    """Remote write to `endpoint` over `shards` lanes."""

    requests_per_lane = 1

    def __init__(self, settings: Sink) -> None:
        self.lanes = settings.shards
        batch = settings.batch
        self._most = max(1, min(batch.max_items // SLICES_PER_REQUEST, MOST_PER_SLICE))
        self._most_bytes = batch.max_bytes // SLICES_PER_REQUEST
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
        """A WriteRequest as a snappy block (not the framed format)."""
        return Request(items, bytes(cramjam.snappy.compress_raw(b"".join(item.series for item in items))))

    async def send(self, request: Request[SampleItem]) -> Outcome:
        """Post it; on 400 and the like find the samples that are to blame."""
        rows = sum(item.rows for item in request.items)
        singles: list[SampleItem] = []
        times: list[int] = []
        old = _TooOld()

        async def attempt(part: Sequence[int]) -> Outcome | Rejected:
            body = request.body
            if len(part) < rows:
                singles[:] = singles or chain.from_iterable(item.singles() for item in request.items)
                times[:] = times or chain.from_iterable(item.times() for item in request.items)
                if max(times[row] for row in part) <= old.until:
                    return Outcome(refused=tuple(Refusal(place, old.detail) for place in range(len(part))))
                body = self.request([singles[row] for row in part]).body
            answer = await self._http.post(self._url, body, HEADERS)
            outcome = self._http.outcome(answer, len(part), REFUSING_SAMPLES)
            if answer.status == HTTPStatus.INTERNAL_SERVER_ERROR and OF_HISTOGRAMS.search(answer.said):
                outcome = Rejected(answer.detail, answer.said)
            if isinstance(outcome, Rejected) and len(part) == 1:
                known = request.repeated or (singles or request.items)[part[0]].redelivered
                if known and DELIVERED_BEFORE.search(outcome.detail):
                    outcome = Outcome(already_delivered=1)
                elif times:
                    old.refused(times[part[0]], outcome.detail, known)
            if isinstance(outcome, Outcome):
                old.taken()
            return outcome

        return await bisect(range(rows), attempt)
