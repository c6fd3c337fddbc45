"""What ingest does to a raw partition: decode, take apart by trace id, pack for the partitions of the pipeline.

One instance per raw partition. `add` takes raw messages, `flush` returns everything since the last flush: one or
more envelopes for each of the N output partitions (the last of each carries the mark), rows without a trace id,
and dead letters. The spans themselves are sliced, never re-encoded.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from processors.envelope_builder import UNTRACED, EnvelopeBuilders
from processors.redaction import Redactor
from schemas.dead_letter import MOST_ALONE, OTLP, DeadLetter
from schemas.envelope import NO_MARK, Envelope
from schemas.errors import Malformed
from schemas.formats import detect, jaeger_json, jaeger_proto, otlp_json, text_logs
from schemas.formats.json_logs import BadLine, LogRow, parse
from schemas.ids import TRACE_ID_BYTES, trace_key
from schemas.otlp_build import logs_data, traces_data
from schemas.otlp_scan import RawRows, Rows
from schemas.raw_message import checked, encoding_of
from schemas.reasons import Reason

ENVELOPE_BYTES = 512 << 10  # of rows and headers; it is split beyond, far below the topics' max.message.bytes
NO_TRACE = bytes(TRACE_ID_BYTES)
STAGE = "ingest"
AUTO = "auto"
_Unfit = tuple[Rows | RawRows, int, Reason]
JSON_LINES = "json"  # a line of its own may be bad, so it does not become one OTLP message

_DETECT: dict[str, Callable[[bytes], str]] = {"traces": detect.detect_traces, "logs": detect.detect_logs}
_TO_OTLP: dict[str, dict[str, Callable[[bytes], bytes]]] = {
    "traces": {
        "otlp_proto": bytes,
        "otlp_json": otlp_json.traces,
        "jaeger_proto": jaeger_proto.traces,
        "jaeger_json": jaeger_json.traces,
    },
    "logs": {"otlp_proto": bytes, "otlp_json": otlp_json.logs, "text": text_logs.logs},
}
ENCODINGS: dict[str, tuple[str, ...]] = {
    "traces": (*_TO_OTLP["traces"], AUTO),
    "logs": (*_TO_OTLP["logs"], JSON_LINES, AUTO),
}
"""What a raw topic of each signal may be encoded in."""


@dataclass(slots=True)
class Flush:
    """What one transaction of ingest writes: encoded envelopes by output partition, and the rest."""

    envelopes: dict[int, list[bytes]]
    untraced: list[tuple[int, bytes]]
    dead_letters: list[DeadLetter]
    rows: int


@dataclass(slots=True)
class Regroup:
    """One raw partition. `signal` is traces or logs, `encoding` one of its ENCODINGS; sizes in bytes.

    With a `redactor` nothing leaves, dead letters included, that it has not seen.
    """

    topic: str
    partition: int
    signal: str
    encoding: str
    partitions: int
    max_message_bytes: int
    max_row_bytes: int
    redactor: Redactor | None = None
    _raw: RawRows = field(init=False)
    _builders: EnvelopeBuilders = field(init=False)
    lost: int = 0  # messages since the last flush of which nothing can be used
    _dead: list[DeadLetter] = field(default_factory=list)
    _dead_bytes: int = 0

    def __post_init__(self) -> None:
        self._raw = RawRows(self.signal)
        self._builders = EnvelopeBuilders(self.partitions, ENVELOPE_BYTES, self.max_row_bytes)

    @property
    def size(self) -> int:
        """Bytes since the last flush, about what they will be uncompressed."""
        return int(self._builders.size) + self._dead_bytes

    def add(self, offset: int, timestamp: int, value: bytes | None) -> None:
        """One raw message with its raw timestamp (ms). Never raises: what does not decode is a dead letter."""
        value = value or b""
        encoding = ""
        try:
            checked(value, self.max_message_bytes)
            encoding = _DETECT[self.signal](value) if self.encoding == AUTO else self.encoding
            if encoding == JSON_LINES:
                self._add_json(offset, timestamp, value)
            else:
                otlp = _TO_OTLP[self.signal][encoding](value)
                if self.redactor is not None:
                    otlp = self.redactor.message(otlp, self.signal)
                self._add_otlp(offset, timestamp, value, otlp)
        except Malformed as error:
            detail = f"taken for {encoding}: {error.detail}" if self.encoding == AUTO and encoding else error.detail
            self._bury_raw(offset, timestamp, 0, value, error.reason, detail)
            self.lost += 1

    def _add_otlp(self, offset: int, timestamp: int, raw: bytes, value: bytes) -> None:
        """`value` is the OTLP that `raw` was decoded to."""
        rows, traces = self._raw, self.signal == "traces"
        rows.scan(value, array("I", [len(value)]))
        if rows.bad:
            raise Malformed(Reason.MALFORMED, rows.bad[0][1])
        nameless = Rows.apart(rows.nameless, rows.resources, rows.scopes)
        spanless = Rows.apart(rows.spanless, rows.resources, rows.scopes)
        large = self._builders.add(value, rows, offset, timestamp, True)
        unfit: list[_Unfit] = [(rows, row, Reason.SPAN_TOO_LARGE) for row in large]
        if traces:
            unfit += [(nameless, row, Reason.NO_TRACE_ID) for row in range(len(nameless))]
            unfit += [(spanless, row, Reason.NO_SPAN_ID) for row in range(len(spanless))]
        elif len(nameless):
            large = self._builders.add(value, nameless, offset, timestamp, False)
            unfit += [(nameless, row, Reason.SPAN_TOO_LARGE) for row in large]
        # A row of several is buried alone, as OTLP; a message's only row in the bytes it came in; many together.
        every = len(rows.starts) + len(nameless) + len(spanless)
        only = every == 1 and self.redactor is None
        self.lost += 0 < every == len(unfit)
        wrap = traces_data if traces else logs_data
        by_reason: dict[Reason, list[tuple[Rows | RawRows, int]]] = {}
        for columns, row, reason in unfit:
            by_reason.setdefault(reason, []).append((columns, row))
        for reason, found in by_reason.items():
            if len(found) > MOST_ALONE:
                found.sort(key=lambda place: place[0].item[place[1]])
                together = wrap(_group(value, columns, row) for columns, row in found)
                first = found[0][0].item[found[0][1]]
                self._bury(offset, timestamp, first, together, reason, f"{len(found)} rows", wrapped=True)
                continue
            for columns, row in found:
                alone = raw if only else wrap([_group(value, columns, row)])
                self._bury(offset, timestamp, columns.item[row], alone, reason, "", wrapped=not only)

    def _add_json(self, offset: int, timestamp: int, value: bytes) -> None:
        lines = list(parse(value))
        bad = next((line for line in lines if isinstance(line, BadLine)), None)
        found = {item: self._redacted(line) for item, line in enumerate(lines) if isinstance(line, LogRow)}
        if not found:
            # Not JSON lines at all: whole, since it was cut at bytes that are no line ends in what it really is.
            raise Malformed(bad.reason, bad.detail) if bad else Malformed(Reason.EMPTY_MESSAGE)
        for item, line in enumerate(lines):
            if isinstance(line, BadLine):
                self._bury_raw(offset, timestamp, item, line.data, line.reason, line.detail)
        for traced in (True, False):
            data, rows = _rows({item: line for item, line in found.items() if _traced(line) == traced})
            for row in self._builders.add(data, rows, offset, timestamp, traced):
                alone = logs_data([_group(data, rows, row)])
                self._bury(offset, timestamp, rows.item[row], alone, Reason.SPAN_TOO_LARGE, "", wrapped=True)

    def _redacted(self, line: LogRow) -> LogRow:
        if self.redactor is None:
            return line
        part = self.redactor.part
        return line._replace(
            record=part(line.record, "logs.v1.LogRecord"),
            resource=part(line.resource, "logs.v1.ResourceLogs"),
            scope=part(line.scope, "logs.v1.ScopeLogs"),
        )

    def _bury_raw(self, offset: int, timestamp: int, index: int, value: bytes, reason: str, detail: str) -> None:
        """Bury bytes that could not be redacted."""
        if self.redactor is not None:
            value, detail = self.redactor.buried(value, detail)
        self._bury(offset, timestamp, index, value, reason, detail)

    def _bury(
        self, offset: int, timestamp: int, index: int, value: bytes, reason: str, detail: str, wrapped: bool = False
    ) -> None:
        """`wrapped`: the row is OTLP now, whatever its message was."""
        place = (self.topic, self.partition, offset, timestamp, index)
        encoding = OTLP if wrapped and self.encoding != OTLP else encoding_of(value)
        self._dead.append(DeadLetter(value, *place, STAGE, reason, detail, encoding))
        self._dead_bytes += len(value)

    def flush(self, mark: int | None, raw_topics: Mapping[str, int]) -> Flush:
        """Everything since the last flush; every output partition gets an envelope that carries the mark."""
        count = self._builders.rows
        built = [
            (target, one.build(Envelope(self.partitions, self.topic, self.partition)))
            for target, one in self._builders.take()
        ]
        own: dict[int, list[Envelope]] = {}
        for target, envelope in built:
            own.setdefault(target, []).append(envelope)
        untraced = own.pop(UNTRACED, [])
        envelopes: dict[int, list[bytes]] = {}
        for target in range(self.partitions):
            mine = own.get(target) or [Envelope(self.partitions, self.topic, self.partition)]
            mine[-1].mark = NO_MARK if mark is None else mark
            mine[-1].raw_topics = dict(raw_topics)
            envelopes[target] = [envelope.encode() for envelope in mine]
        flushed = Flush(envelopes, [(len(e), e.encode()) for e in untraced], self._dead, count)
        self._dead, self._dead_bytes, self.lost = [], 0, 0
        return flushed


def _group(data: bytes, rows: Rows | RawRows, row: int) -> tuple[bytes, bytes, list[bytes]]:
    """A row with its headers, as `schemas.otlp_build` takes it."""
    headers = rows.resources[rows.resource[row]], rows.scopes[rows.scope[row]]
    return *headers, [data[rows.starts[row] : rows.ends[row]]]


def _traced(line: LogRow) -> bool:
    return len(line.trace_id) == TRACE_ID_BYTES and line.trace_id != NO_TRACE


def _rows(lines: Mapping[int, LogRow]) -> tuple[bytes, Rows]:
    """Log records that were made one by one, by their index in their message: end to end, and as columns."""
    resources: dict[bytes, int] = {}
    scopes: dict[bytes, int] = {}
    rows = Rows()
    end = 0
    for item, line in lines.items():
        rows.starts.append(end)
        end += len(line.record)
        rows.ends.append(end)
        rows.resource.append(resources.setdefault(line.resource, len(resources)))
        rows.scope.append(scopes.setdefault(line.scope, len(scopes)))
        rows.item.append(item)
        rows.keys.append(trace_key(line.trace_id) if _traced(line) else 0)
    rows.resources, rows.scopes = list(resources), list(scopes)
    return b"".join(line.record for line in lines.values()), rows
