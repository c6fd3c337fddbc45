"""Ticks to Prometheus, or anything else that takes remote write 1.0.

A series stays on one lane, and a lane has one request under way: samples of a series arrive in the order of time. A
tick is sent once it is complete. Source: Prometheus remote write specification 1.0.

Samples are queued in slices of some hundred. Prometheus refuses a request as a whole because of one bad sample: its
samples are halved until it stands alone. Once the times of those say that the others are too old as well, these are
refused unsent: a backlog from before the receiver's window would take a request for each of its samples. So are, for
some minutes, the samples of a series that was refused for what it is: to find it again would take as long with each
tick. After a crash the successor sends again what may have arrived already; out-of-order and duplicate refusals of such
samples are `already_delivered`. Each is asked for: what one lane of the predecessor had delivered says nothing of
another, and lanes may have been others.
"""

from __future__ import annotations

import re
import time
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from itertools import chain, groupby, takewhile
from math import inf

import cramjam

from schemas.formats.write_request import Slices
from schemas.sample import PackedChunk, TickFooter, TickHeader, find_record
from sinks.contract import Coordinates, Destination, Item, Outcome, Refusal, Request, SourceRecord
from sinks.http import REFUSING, HttpClient, Rejected, bisect
from sinks.protobuf import leading_fields, varint_before
from sinks.remote_write import LABEL_TAG, defect, write_series
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
# What says nothing of the next sample of a series: the time, or what is in a histogram. With hyphens: Mimir's ids.
OF_THE_SAMPLE = re.compile(
    r"out[ -]of[ -](order|bounds)|duplicate|too[ -]old|in[ -](the[ -])?future"
    r"|native[ -]histogram(?!s are disabled)|histogram(?:'s| has| spans) "
)
# So much a series loses when a limit of the receiver is raised, or others leave room. To find 200 of 20,000 takes 3,000
# requests.
REFUSED_FOR = 300.0  # seconds
MOST_REFUSED = 10_000  # series; some hundred bytes each
MANY_DELIVERED = 32  # in a row: from there on samples are asked for one by one, not by halves

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

    def labels(self) -> list[bytes]:
        """What each sample's series is: the `labels` fields, which are the same with every tick."""
        return [leading_fields(self.series, start, LABEL_TAG) for start in (0, *self.ends[:-1])]


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


class _RefusedSeries:
    """Series, as their labels, that the receiver refused alone within REFUSED_FOR, and what it said.

    When there are too many, more are not remembered.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._found: dict[bytes, tuple[float, str]] = {}  # until when; in order

    def add(self, series: bytes, detail: str) -> None:
        """It was refused alone."""
        self._found.pop(series, None)
        if len(self._found) < MOST_REFUSED and not OF_THE_SAMPLE.search(detail):
            self._found[series] = self._clock() + REFUSED_FOR, detail

    def look(self) -> bool:
        """Whether there are any; those whose time is over are forgotten."""
        now = self._clock()
        for series in list(takewhile(lambda series: self._found[series][0] <= now, self._found)):
            del self._found[series]
        return bool(self._found)

    def clear(self) -> None:
        """One of them was taken."""
        self._found.clear()

    def __contains__(self, series: bytes) -> bool:
        return series in self._found

    def detail(self, series: bytes) -> str:
        """What was said of it."""
        return self._found[series][1]


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
        self._refused = _RefusedSeries(clock)

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
        """Post it; on 400 and the like find the samples that are to blame.

        Of what holds refused series only the first sample goes all the same: if it is taken, so are the others.
        """
        rows = sum(item.rows for item in request.items)
        singles: list[SampleItem] = []
        times: list[int] = []
        labels: list[bytes] = []
        old, refused = _TooOld(), self._refused
        trial, delivered = -1, 0
        if refused.look():
            labels += chain.from_iterable(item.labels() for item in request.items)
            trial = 0 if all(series in refused for series in labels) else -1

        def unasked(row: int) -> str:
            """Why a sample is refused unsent; "" if it is to be sent."""
            if labels and row != trial and labels[row] in refused:
                return refused.detail(labels[row])
            return old.detail if times and times[row] <= old.until else ""

        async def attempt(part: Sequence[int]) -> Outcome | Rejected:
            nonlocal trial, delivered
            why = [unasked(row) for row in part]
            asked = [row for row, detail in zip(part, why, strict=True) if not detail]
            outcome: Outcome | Rejected = Outcome()
            if len(asked) > 1 and delivered >= MANY_DELIVERED:
                return Rejected("")  # not asked for together
            if asked:
                body = request.body
                if len(asked) < rows:
                    singles[:] = singles or chain.from_iterable(item.singles() for item in request.items)
                    times[:] = times or chain.from_iterable(item.times() for item in request.items)
                    body = self.request([singles[row] for row in asked]).body
                outcome = await self._post(body, len(part))
            if isinstance(outcome, Rejected) and len(asked) == 1:
                row = asked[0]
                known = request.repeated or (singles or request.items)[row].redelivered
                if known and DELIVERED_BEFORE.search(outcome.detail):
                    outcome = Outcome(already_delivered=1)
                    delivered += 1
                    old.taken()
                else:
                    if times:
                        old.refused(times[row], outcome.detail, known)
                    labels[:] = labels or chain.from_iterable(item.labels() for item in request.items)
                    refused.add(labels[row], outcome.detail)
                    trial = -1
                    if len(part) > 1:
                        why[part.index(row)] = outcome.detail
                        outcome = Outcome()
            if isinstance(outcome, Rejected) or outcome.retry:
                return outcome
            if outcome.accepted:
                outcome = Outcome(accepted=len(asked))
                delivered = 0
                old.taken()
                if trial in asked:
                    refused.clear()
                    trial = -1
                    if len(part) > 1:
                        return Rejected("")  # the others are asked for as well
            return outcome + Outcome(refused=tuple(Refusal(n, detail) for n, detail in enumerate(why) if detail))

        return await bisect(range(rows), attempt)

    async def _post(self, body: bytes, rows: int) -> Outcome | Rejected:
        answer = await self._http.post(self._url, body, HEADERS)
        if answer.status == HTTPStatus.INTERNAL_SERVER_ERROR and OF_HISTOGRAMS.search(answer.said):
            return Rejected(answer.detail, answer.said)
        return self._http.outcome(answer, rows, REFUSING_SAMPLES)
