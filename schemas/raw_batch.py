"""Raw records of one partition as `sample` reads them without `ingest`: taken apart once, never copied again.

The values of consecutive records lie in one body, as Kafka had them; the rows stay where they are in it, and columns
say where (`RawRows`). It is the envelope that ingest would have made of the same records, but in memory.

A batch that has to wait for long can be made smaller (`shrunk`): its body is left to where it came from, which is as
Kafka has it. If that was not compressed, or is dear to unpack, to a block of lz4, the quickest both ways of what there
is (`python -m bench.micro.codecs`).
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import cramjam

from schemas.dead_letter import DeadLetter, grouped
from schemas.envelope import Envelope, Places
from schemas.errors import Malformed
from schemas.otlp_build import traces_data
from schemas.otlp_scan import RawRows, Rows
from schemas.raw_message import checked, encoding_of
from schemas.raw_records import Packed, RawRecord, Records, Source
from schemas.reasons import Reason

STAGE = "sample"
ROW_BYTES = 32  # of a row's columns
HEADER_BYTES = 41  # of a resource or a scope beside its own: an object and a place in a list
MESSAGE_BYTES = 16  # of a message's coordinates: a place in two columns

Record = tuple[int, int, bytes]
"""Offset, timestamp in ms, value."""
Row = tuple[Rows | RawRows, int]
"""A row by its number."""
Unfit = list[tuple[Rows | RawRows, Sequence[int], Reason]]
"""Which of some rows are dead letters, and why."""


@dataclass(frozen=True, slots=True)
class RawBatch:
    """Consecutive records: the rows that belong to traces, logs that belong to none, and what cannot be handled.

    `after` is the offset behind the last record, `size` about what the batch takes in memory, in bytes. `source` is
    what the body can be had from again; while it `is_shrunk` the envelopes have none.
    """

    rows: Envelope
    untraced: Envelope
    dead_letters: list[DeadLetter]
    after: int
    size: int
    source: Source | None = None

    @property
    def is_shrunk(self) -> bool:
        """Whether its body is elsewhere."""
        return self.source is not None and not self.rows.body

    def shrunk(self) -> RawBatch:
        """The same without its body, if that saves anything."""
        source = self.source or _packed(self.rows.body)
        if (saved := len(self.rows.body) - source.size) <= 0:
            return self
        return replace(self._with(b""), size=self.size - saved, source=source)

    def whole(self) -> RawBatch:
        """With its body, and without its source."""
        if self.source is None:
            return self
        if self.rows.body:
            return replace(self, source=None)
        body = self.source.read()
        return replace(self._with(body), size=self.size + len(body) - self.source.size, source=None)

    def _with(self, body: bytes) -> RawBatch:
        return replace(self, rows=replace(self.rows, body=body), untraced=replace(self.untraced, body=body))

    @property
    def lost(self) -> int:
        """Records of which nothing can be used."""
        if not self.dead_letters:
            return 0
        used = {*self.rows.message, *self.untraced.message}
        return len({letter.offset for letter in self.dead_letters} - {self.rows.messages[m][0] for m in used})


class RawReader:
    """Takes the records of one raw partition apart. `signal` is traces or logs, limits are in bytes.

    `redact` is given each message first and raises Malformed for what it cannot read, None: nothing is taken out;
    `buried` gives what a dead letter for such bytes holds, and its detail.
    """

    def __init__(
        self,
        topic: str,
        partition: int,
        partitions: int,
        signal: str,
        max_message_bytes: int,
        max_row_bytes: int,
        redact: Callable[[bytes], bytes] | None = None,
        buried: Callable[[bytes, str], tuple[bytes, str]] = lambda value, detail: (value, detail),
    ) -> None:
        self._redact, self._buried = redact, buried
        self.topic, self.partition, self._partitions, self._traces = topic, partition, partitions, signal == "traces"
        self._max_message_bytes, self._max_row_bytes = max_message_bytes, max_row_bytes
        self._raw = RawRows(signal)

    def read(self, given: Iterable[Record]) -> RawBatch:
        """One batch of at least one record, in the order of their offsets. Never raises: poison is in the batch."""
        dead: list[DeadLetter] = []
        records = given if isinstance(given, Records) else Records.of(given)
        if self._redact is not None or not records.are_within(self._max_message_bytes):
            records = Records.of(self._readable(records, dead))
        raw, body = self._raw, records.data
        raw.scan(body, records.ends, records.starts)
        for message, detail in raw.bad:
            if (record := records[message]).value:
                dead.append(self._letter(record, 0, *self._buried(record.value, detail), Reason.MALFORMED))
        fit = records.longest <= self._max_row_bytes
        messages = records.places
        rows, large = self._fitting(raw, messages, body, fit)
        untraced, large_untraced = self._fitting(Rows() if self._traces else raw.nameless, messages, body, fit)
        unfit: Unfit = [(raw, large, Reason.SPAN_TOO_LARGE), (raw.nameless, large_untraced, Reason.SPAN_TOO_LARGE)]
        if self._traces:
            unfit += without_ids(raw)
        for (message, reason), several in by_message(unfit).items():
            record = records[message]
            dead += [self._row_letter(record, body, each, reason) for each in grouped(several, header_bytes)]
        dead.sort(key=lambda letter: (letter.offset, letter.index))
        size = len(body) + ROW_BYTES * (len(rows) + len(untraced)) + MESSAGE_BYTES * len(records)
        size += sum(len(letter.value) for letter in dead)
        headers = (*raw.resources, *raw.scopes)
        size += sum(map(len, headers)) + HEADER_BYTES * len(headers)
        return RawBatch(rows, untraced, dead, records.after, size, records.source)

    def _readable(self, records: Records, dead: list[DeadLetter]) -> Iterator[Record]:
        """What is to be taken apart of each record: nothing of one that becomes a dead letter."""
        for record in records:
            offset, timestamp, value = record
            try:
                value = checked(value, self._max_message_bytes)
                yield offset, timestamp, value if self._redact is None else self._redact(value)
            except Malformed as error:
                dead.append(self._letter(record, 0, *self._buried(value, error.detail), error.reason))
                yield offset, timestamp, b""

    def _envelope(self, messages: Places, body: bytes) -> Envelope:
        headers = {"resources": self._raw.resources, "scopes": self._raw.scopes}
        return Envelope(self._partitions, self.topic, self.partition, messages=messages, body=body, **headers)

    def _fitting(
        self, found: Rows | RawRows, messages: Places, body: bytes, fit: bool
    ) -> tuple[Envelope, Sequence[int]]:
        """The rows that fit into an envelope with their headers, and the numbers of the others, none if all `fit`."""
        rows = self._envelope(messages, body)
        columns: tuple[array[int], ...] = (found.starts, found.ends, found.resource, found.scope)
        columns += (found.message, found.item, found.keys)
        large: list[int] = []
        if not fit:
            limit = self._max_row_bytes
            small: list[int] = []
            for row in range(len(found.starts)):
                size = found.ends[row] - found.starts[row] + header_bytes((found, row))
                (small if size <= limit else large).append(row)
            columns = tuple(array(column.typecode, [column[row] for row in small]) for column in columns)
        rows.starts, rows.ends, rows.resource, rows.scope, rows.message, rows.item, rows.keys = columns
        return rows, large

    def _row_letter(self, record: RawRecord, body: bytes, several: Sequence[Row], reason: Reason) -> DeadLetter:
        """A row of several is buried alone, as OTLP; a message's only row in the bytes it came in; many together."""
        several = sorted(several, key=item_of)
        item = item_of(several[0])
        alone = traces_data(group_of(body, row) for row in several)
        if len(several) > 1:
            return self._letter(record, item, alone, f"{len(several)} rows", reason)
        only = item == 0 and len(alone) >= len(record.value)
        return self._letter(record, item, record.value if only else alone, "", reason)

    def _letter(self, record: RawRecord, item: int, value: bytes, detail: str, reason: str) -> DeadLetter:
        offset, timestamp, _ = record
        place = self.topic, self.partition, offset, timestamp, item
        return DeadLetter(value, *place, STAGE, reason, detail, encoding_of(value))


def _packed(body: bytes) -> Source:
    block = bytes(cramjam.lz4.compress_block(body))
    return Source(Packed([(_unpacked, block)], len(body)), 0, len(body))


def _unpacked(block: bytes) -> bytes:
    return bytes(cramjam.lz4.decompress_block(block))


def without_ids(raw: RawRows) -> Unfit:
    """Spans that are in no trace."""
    return [
        (raw.nameless, range(len(raw.nameless)), Reason.NO_TRACE_ID),
        (raw.spanless, range(len(raw.spanless)), Reason.NO_SPAN_ID),
    ]


def by_message(unfit: Unfit) -> dict[tuple[int, Reason], list[Row]]:
    """The rows of each message that leave it for the same reason."""
    found: dict[tuple[int, Reason], list[Row]] = {}
    for rows, numbers, reason in unfit:
        for row in numbers:
            found.setdefault((rows.message[row], reason), []).append((rows, row))
    return found


def item_of(row: Row) -> int:
    """Its place in its message."""
    rows, number = row
    return rows.item[number]


def header_bytes(row: Row) -> int:
    """The size of its resource and scope."""
    rows, number = row
    return len(rows.resources[rows.resource[number]]) + len(rows.scopes[rows.scope[number]])


def group_of(data: bytes, row: Row) -> tuple[bytes, bytes, list[bytes]]:
    """The row with its headers, as `schemas.otlp_build` takes it."""
    rows, number = row
    resource, scope = rows.resources[rows.resource[number]], rows.scopes[rows.scope[number]]
    return resource, scope, [data[rows.starts[number] : rows.ends[number]]]
