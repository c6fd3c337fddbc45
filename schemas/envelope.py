"""The value of `spans`, `logs`, `untraced.logs`, `kept.spans` and `kept.logs`: rows of untouched OTLP.

A *row* is one OTLP Span or LogRecord message, byte for byte as it came. Rows lie end to end in `body`; columns
say where each one ends, which Resource and Scope it belongs to and which raw message it came from. A Resource
(Scope) is the ResourceSpans/ResourceLogs (ScopeSpans/ScopeLogs) message without its children: resource and
schema_url fields as they came, so `resource + tag(2) + scope…` concatenates back into valid OTLP.

An envelope also carries the *mark* of its raw partition: the raw timestamp up to which that partition has been
read (docs/adr/0003). An envelope without rows is a mark alone.

On the wire: a msgpack map, zstd-compressed when that pays (a frame starts with zstd's magic number).
"""

from __future__ import annotations

from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, overload

from schemas.columns import cut, keys_of, lengths_of, numbers_of, renumbered
from schemas.decision import Enrichment
from schemas.errors import ProtocolError
from schemas.packing import pack, unpack
from schemas.versions import require

VERSION = 1
READS = (1,)
NO_MARK = -1
ENVELOPE_BYTES = 512 << 10  # of rows and headers; it is split beyond, far below the topics' max.message.bytes


def u64(values: list[int] | None = None) -> array[int]:
    """A column of unsigned 64-bit integers."""
    return array("Q", values or [])


def u32(values: Sequence[int] | None = None) -> array[int]:
    """A column of unsigned 32-bit integers."""
    return array("I", values or [])


@dataclass(frozen=True, slots=True)
class Places(Sequence[tuple[int, int]]):
    """Offset and raw timestamp (ms) of raw records, in columns of signed 64-bit integers."""

    offsets: array[int]
    timestamps: array[int]

    def __len__(self) -> int:
        return len(self.offsets)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self.offsets, self.timestamps, strict=True)

    @overload
    def __getitem__(self, place: int) -> tuple[int, int]: ...
    @overload
    def __getitem__(self, place: slice) -> Places: ...
    def __getitem__(self, place: int | slice) -> tuple[int, int] | Places:
        if isinstance(place, slice):
            return Places(self.offsets[place], self.timestamps[place])
        return self.offsets[place], self.timestamps[place]


@dataclass(slots=True)
class Envelope:
    """Rows of one raw partition that belong to one output partition.

    `ends[i]` is where row i ends in `body` (row 0 starts at 0); `resource`, `scope` and `message` index into
    the lists of the same name; `item` is the row's index inside its raw message; `keys` is the trace key of each
    row (`schemas.ids.trace_key`; 0 for a log without a trace), so nobody scans a row to find its trace.
    `messages` holds (offset, raw timestamp in ms) of the raw records. `mark` is in ms, NO_MARK when the raw
    partition has none yet.
    `raw_topics` maps every raw topic of the pipeline to its partition count: the clock waits for all of them.
    `verdicts` is set on kept envelopes only: one per row, None where the row has no verdict.
    `starts[i]` is where row i starts while rows do not lie end to end: in memory only (schemas/raw_batch.py), no
    record has it.
    """

    partitions: int
    topic: str
    partition: int
    mark: int = NO_MARK
    raw_topics: dict[str, int] = field(default_factory=dict)
    resources: list[bytes] = field(default_factory=list)
    scopes: list[bytes] = field(default_factory=list)
    messages: Sequence[tuple[int, int]] = field(default_factory=list)
    body: bytes = b""
    ends: array[int] = field(default_factory=u32)
    resource: array[int] = field(default_factory=u32)
    scope: array[int] = field(default_factory=u32)
    message: array[int] = field(default_factory=u32)
    item: array[int] = field(default_factory=u32)
    keys: array[int] = field(default_factory=u64)
    verdicts: list[RowVerdict | None] = field(default_factory=list)
    starts: array[int] | None = None

    def __len__(self) -> int:
        return len(self.ends)

    def row(self, index: int) -> bytes:
        """The OTLP bytes of row `index`."""
        return self.body[self._start(index) : self.ends[index]]

    def timestamps(self) -> array[int]:
        """The raw timestamp of each message, ms."""
        if isinstance(self.messages, Places):
            return self.messages.timestamps
        return array("q", [timestamp for _, timestamp in self.messages])

    def lengths(self, rows: array[int]) -> array[int]:
        """Bytes of these rows."""
        found: array[int] = lengths_of(self.starts, self.ends, rows)
        return found

    def _start(self, index: int) -> int:
        if self.starts is not None:
            return self.starts[index]
        return self.ends[index - 1] if index else 0

    def select(self, rows: Sequence[int], verdicts: list[RowVerdict | None]) -> Envelope:
        """The kept envelope of some rows, with their verdicts: slices, nothing re-encoded, no mark."""
        chosen = u32(rows)
        selected = Envelope(self.partitions, self.topic, self.partition, verdicts=verdicts)
        selected.body, selected.ends = cut(self.body, self.starts, self.ends, chosen)
        selected.resource, resources = renumbered(self.resource, chosen, len(self.resources))
        selected.scope, scopes = renumbered(self.scope, chosen, len(self.scopes))
        selected.message, messages = renumbered(self.message, chosen, len(self.messages))
        selected.item, selected.keys = numbers_of(self.item, chosen), keys_of(self.keys, chosen)
        selected.resources = [self.resources[index] for index in resources]
        selected.scopes = [self.scopes[index] for index in scopes]
        selected.messages = [self.messages[index] for index in messages]
        return selected

    def encode(self, body: bytes | memoryview | None = None) -> bytes:
        """The record value; `decode` is its inverse. `body` stands in the place of the envelope's own."""
        return pack(
            {
                "v": VERSION,
                "n": self.partitions,
                "src": [self.topic, self.partition],
                "mark": self.mark,
                "raw": self.raw_topics,
                "res": self.resources,
                "sco": self.scopes,
                "msg": list(self.messages),
                "keys": self.keys.tobytes(),
                "body": self.body if body is None else body,
                "col": [column.tobytes() for column in self._columns()],
                "ver": _pack_verdicts(self.verdicts),
            }
        )

    def _columns(self) -> tuple[array[int], ...]:
        return (self.ends, self.resource, self.scope, self.message, self.item)

    @classmethod
    def decode(cls, value: bytes) -> Envelope:
        """Read a record value of this or the previous version.

        Raises ProtocolError: internal topics carry nothing else, so foreign bytes mean a wrong `kafka.prefix`.
        """
        try:
            raw: dict[str, Any] = unpack(value)
            require("envelope", raw["v"], READS)
            columns = []
            for data in raw["col"]:
                column = u32()
                column.frombytes(data)
                columns.append(column)
            ends, resource, scope, message, item = columns
            keys = u64()
            keys.frombytes(raw["keys"])
            return cls(
                partitions=raw["n"],
                topic=raw["src"][0],
                partition=raw["src"][1],
                mark=raw["mark"],
                raw_topics=raw["raw"],
                resources=raw["res"],
                scopes=raw["sco"],
                messages=[(offset, timestamp) for offset, timestamp in raw["msg"]],
                body=raw["body"],
                ends=ends,
                resource=resource,
                scope=scope,
                message=message,
                item=item,
                keys=keys,
                verdicts=_unpack_verdicts(raw["ver"]),
            )
        except (KeyError, ValueError, TypeError, IndexError) as error:
            raise ProtocolError(f"not an envelope of Tailrace: {error!r}") from error


@dataclass(frozen=True, slots=True)
class RowVerdict:
    """What was decided about a row's trace, as the sinks show it.

    `policy` kept the trace ("" = it was dropped); `threshold` is the 56-bit sampling threshold (0 = certain).
    `span` enriches logs: service, span name and status of the span that the log names.
    """

    kept: bool
    policy: str = ""
    threshold: int = 0
    span: Enrichment | None = None


def _pack_verdicts(verdicts: list[RowVerdict | None]) -> list[Any]:
    """Distinct verdicts once, then one index per row. Most rows share an object: whose address is quick to hash."""
    distinct: dict[RowVerdict | None, int] = {}
    shared = {id(verdict): verdict for verdict in verdicts}
    numbers = {place: distinct.setdefault(verdict, len(distinct)) for place, verdict in shared.items()}
    index = u32([numbers[id(verdict)] for verdict in verdicts])
    table = [None if v is None else [v.kept, v.policy, v.threshold, v.span] for v in distinct]
    return [table, index.tobytes()]


def _unpack_verdicts(raw: list[Any]) -> list[RowVerdict | None]:
    table = [
        None if entry is None else RowVerdict(entry[0], entry[1], entry[2], Enrichment(*entry[3]) if entry[3] else None)
        for entry in raw[0]
    ]
    index = u32()
    index.frombytes(raw[1])
    return [table[i] for i in index]
