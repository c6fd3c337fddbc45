"""What ingest does to a raw partition: decode, take apart by trace id, pack for the partitions of the pipeline.

One instance per raw partition. `add` takes raw messages, `flush` returns everything since the last flush: one or
more envelopes for each of the N output partitions (the last of each carries the mark), rows without a trace id,
and dead letters. The spans themselves are sliced, never re-encoded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from schemas.dead_letter import DeadLetter
from schemas.envelope import NO_MARK, Envelope
from schemas.errors import Malformed
from schemas.formats import detect, jaeger_json, jaeger_proto, otlp_json, text_logs
from schemas.formats.json_logs import BadLine, LogRow, parse
from schemas.ids import SPAN_ID_BYTES, TRACE_ID_BYTES, trace_key
from schemas.otlp_build import logs_data, traces_data
from schemas.otlp_scan import split_logs, split_traces
from schemas.reasons import Reason

ENVELOPE_BYTES = 512 << 10  # of rows and headers; it is split beyond, far below the topics' max.message.bytes
ROW_OVERHEAD = 40  # bytes of a row's columns and of its message's coordinates
NO_TRACE = bytes(TRACE_ID_BYTES)
NO_SPAN = bytes(SPAN_ID_BYTES)
STAGE = "ingest"
AUTO = "auto"
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
class _Builder:
    """An envelope in the making."""

    envelope: Envelope
    rows: list[bytes] = field(default_factory=list)
    end: int = 0
    size: int = 0  # about what it will be on the wire, uncompressed
    resources: dict[bytes, int] = field(default_factory=dict)
    scopes: dict[bytes, int] = field(default_factory=dict)
    message: int = -1  # offset of the newest message in `envelope.messages`

    def add(self, row: bytes, key: int, resource: bytes, scope: bytes, source: tuple[int, int], item: int) -> None:
        envelope = self.envelope
        if source[0] != self.message:
            self.message = source[0]
            envelope.messages.append(source)
        self.size += self.added(row, resource, scope)
        self.rows.append(row)
        self.end += len(row)
        envelope.ends.append(self.end)
        envelope.keys.append(key)
        envelope.resource.append(self.resources.setdefault(resource, len(self.resources)))
        envelope.scope.append(self.scopes.setdefault(scope, len(self.scopes)))
        envelope.message.append(len(envelope.messages) - 1)
        envelope.item.append(item)

    def added(self, row: bytes, resource: bytes, scope: bytes) -> int:
        """By how many bytes a row lets the envelope grow; a header that is in it already costs nothing more."""
        headers = (resource not in self.resources) * len(resource) + (scope not in self.scopes) * len(scope)
        return ROW_OVERHEAD + len(row) + headers

    def build(self) -> Envelope:
        self.envelope.body = b"".join(self.rows)
        self.envelope.resources = list(self.resources)
        self.envelope.scopes = list(self.scopes)
        return self.envelope


@dataclass(slots=True)
class Regroup:
    """One raw partition. `signal` is traces or logs, `encoding` one of its ENCODINGS; sizes in bytes."""

    topic: str
    partition: int
    signal: str
    encoding: str
    partitions: int
    max_message_bytes: int
    max_row_bytes: int
    size: int = 0
    _building: dict[int, _Builder] = field(default_factory=dict)
    _full: list[tuple[int, Envelope]] = field(default_factory=list)
    _dead: list[DeadLetter] = field(default_factory=list)
    _rows: int = 0

    UNTRACED = -1  # the builder of rows without a trace id

    def add(self, offset: int, timestamp: int, value: bytes | None) -> None:
        """One raw message with its raw timestamp (ms). Never raises: what does not decode is a dead letter."""
        value = value or b""
        encoding = ""
        try:
            if not value:
                raise Malformed(Reason.EMPTY_MESSAGE)
            if len(value) > self.max_message_bytes:
                raise Malformed(Reason.MESSAGE_TOO_LARGE, f"{len(value)} bytes, limit {self.max_message_bytes}")
            encoding = _DETECT[self.signal](value) if self.encoding == AUTO else self.encoding
            if encoding == JSON_LINES:
                self._add_json(offset, timestamp, value)
            else:
                self._add_otlp(offset, timestamp, value, _TO_OTLP[self.signal][encoding](value))
        except Malformed as error:
            detail = f"taken for {encoding}: {error.detail}" if self.encoding == AUTO and encoding else error.detail
            self._bury(offset, timestamp, 0, value, error.reason, detail)

    def _add_otlp(self, offset: int, timestamp: int, raw: bytes, value: bytes) -> None:
        """`value` is the OTLP that `raw` was decoded to."""
        traces = self.signal == "traces"
        rows = (split_traces if traces else split_logs)(value)
        if not rows.resources:
            raise Malformed(Reason.MALFORMED, f"no Resource{'Spans' if traces else 'Logs'} in the message")
        wrap = traces_data if traces else logs_data
        for item, (start, end, resource, scope, trace_id, span_id) in enumerate(
            zip(rows.starts, rows.ends, rows.resource, rows.scope, rows.trace_ids, rows.span_ids, strict=True)
        ):
            row = value[start:end]
            headers = rows.resources[resource], rows.scopes[scope]
            reason = self._unfit_ids(trace_id, span_id) if traces else None
            reason = reason or self._unfit_size(row, *headers)
            if reason is None:
                self._row(row, trace_id, *headers, (offset, timestamp), item)
            else:
                # A row of several is buried alone, as OTLP; a message's only row in the bytes it came in.
                alone = raw if len(rows) == 1 else wrap([(*headers, [row])])
                self._bury(offset, timestamp, item, alone, reason, "")

    def _add_json(self, offset: int, timestamp: int, value: bytes) -> None:
        lines = list(parse(value))
        bad = next((line for line in lines if isinstance(line, BadLine)), None)
        if not any(isinstance(line, LogRow) for line in lines):
            # Not JSON lines at all: whole, since it was cut at bytes that are no line ends in what it really is.
            raise Malformed(bad.reason, bad.detail) if bad else Malformed(Reason.EMPTY_MESSAGE)
        for item, line in enumerate(lines):
            if isinstance(line, BadLine):
                self._bury(offset, timestamp, item, line.data, line.reason, line.detail)
                continue
            reason = self._unfit_size(line.record, line.resource, line.scope)
            if reason is None:
                self._row(line.record, line.trace_id, line.resource, line.scope, (offset, timestamp), item)
            else:
                self._bury(offset, timestamp, item, logs_data([(line.resource, line.scope, [line.record])]), reason, "")

    def _unfit_ids(self, trace_id: bytes, span_id: bytes) -> Reason | None:
        if len(trace_id) != TRACE_ID_BYTES or trace_id == NO_TRACE:
            return Reason.NO_TRACE_ID
        return Reason.NO_SPAN_ID if len(span_id) != SPAN_ID_BYTES or span_id == NO_SPAN else None

    def _unfit_size(self, *parts: bytes) -> Reason | None:
        """A row with its headers must fit into an envelope: one that no topic takes would come back for ever."""
        return Reason.SPAN_TOO_LARGE if sum(map(len, parts)) > self.max_row_bytes else None

    def _row(
        self, row: bytes, trace_id: bytes, resource: bytes, scope: bytes, source: tuple[int, int], item: int
    ) -> None:
        traced = len(trace_id) == TRACE_ID_BYTES and trace_id != NO_TRACE
        key = trace_key(trace_id) if traced else 0
        target = key % self.partitions if traced else self.UNTRACED
        builder = self._building.get(target)
        if builder is not None and builder.size + builder.added(row, resource, scope) > ENVELOPE_BYTES:
            self._full.append((target, builder.build()))
            builder = None
        if builder is None:
            builder = self._building[target] = _Builder(Envelope(self.partitions, self.topic, self.partition))
        size = builder.size
        builder.add(row, key, resource, scope, source, item)
        self.size += builder.size - size
        self._rows += 1

    def _bury(self, offset: int, timestamp: int, index: int, value: bytes, reason: str, detail: str) -> None:
        self._dead.append(
            DeadLetter(value, self.topic, self.partition, offset, timestamp, index, STAGE, reason, detail)
        )
        self.size += len(value)

    def flush(self, mark: int | None, raw_topics: Mapping[str, int]) -> Flush:
        """Everything since the last flush; every output partition gets an envelope that carries the mark."""
        whole = [*self._full, *((target, builder.build()) for target, builder in self._building.items())]
        untraced = [envelope for target, envelope in whole if target == self.UNTRACED]
        envelopes: dict[int, list[bytes]] = {}
        for target in range(self.partitions):
            own = [envelope for to, envelope in whole if to == target] or [
                Envelope(self.partitions, self.topic, self.partition)
            ]
            own[-1].mark = NO_MARK if mark is None else mark
            own[-1].raw_topics = dict(raw_topics)
            envelopes[target] = [envelope.encode() for envelope in own]
        flushed = Flush(envelopes, [(len(e), e.encode()) for e in untraced], self._dead, self._rows)
        self._building, self._full, self._dead = {}, [], []
        self.size = self._rows = 0
        return flushed
