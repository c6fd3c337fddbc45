"""What ingest does to a raw partition: decode, take apart by trace id, pack for the partitions of the pipeline.

One instance per raw partition. `add_all` takes raw messages, `flush` returns everything since the last flush: one or
more envelopes for each of the N output partitions (the last of each carries the mark), rows without a trace id,
and dead letters. The spans themselves are sliced, never re-encoded. Messages that are OTLP once they are decoded are
taken apart together: many have a single span, and a call costs more than a span.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from processors.envelope_builder import UNTRACED, EnvelopeBuilder, EnvelopeBuilders
from processors.redaction import Redactor
from schemas.dead_letter import OTLP, DeadLetter, grouped
from schemas.envelope import ENVELOPE_BYTES, NO_MARK, Envelope
from schemas.errors import Malformed
from schemas.formats import detect, jaeger_json, jaeger_proto, otlp_json, text_logs
from schemas.formats.json_logs import BadLine, LogRow, parse
from schemas.ids import TRACE_ID_BYTES, trace_key
from schemas.otlp_build import log_observed, logs_data, traces_data
from schemas.otlp_scan import RawRows, Rows
from schemas.raw_batch import Unfit, by_message, group_of, header_bytes, item_of, without_ids
from schemas.raw_message import checked, encoding_of
from schemas.raw_records import Records
from schemas.reasons import Reason

NO_TRACE = bytes(TRACE_ID_BYTES)
STAGE = "ingest"
LETTER_BYTES = 400  # of a dead letter beside its value, in memory and as headers
AUTO = "auto"
BATCH_BYTES = 1 << 20  # of OTLP that are taken apart together once they are decoded: what a piece of a fetch has
_Decoded = tuple[int, int, bytes, bytes, str]
"""Offset, timestamp, the raw message, the OTLP that it was decoded to, its encoding."""
TEXT = "text"
JSON_LINES = "json"  # a line of its own may be bad, so it does not become one OTLP message

_DETECT: dict[str, Callable[[bytes], str]] = {"traces": detect.detect_traces, "logs": detect.detect_logs}
_TO_OTLP: dict[str, dict[str, Callable[[bytes], bytes]]] = {
    "traces": {
        "otlp_proto": bytes,
        "otlp_json": otlp_json.traces,
        "jaeger_proto": jaeger_proto.traces,
        "jaeger_json": jaeger_json.traces,
    },
    "logs": {"otlp_proto": bytes, "otlp_json": otlp_json.logs},
}
ENCODINGS: dict[str, tuple[str, ...]] = {
    "traces": (*_TO_OTLP["traces"], AUTO),
    "logs": (*_TO_OTLP["logs"], TEXT, JSON_LINES, AUTO),
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
        """One raw message, as `add_all`."""
        self.add_all([(offset, timestamp, value)])

    def add_all(self, given: Iterable[tuple[int, int, bytes | None]]) -> None:
        """Raw messages: offset, raw timestamp (ms) and value. Never raises: what does not decode is a dead letter."""
        records = given if isinstance(given, Records) else Records.of(given)
        if self.encoding == OTLP and self.redactor is None and records.are_within(self.max_message_bytes):
            self._take_apart(records, lambda number: (*records[number], records[number].value, OTLP))
            return
        named, size, found = None if self.encoding == AUTO else self.encoding, 0, list[_Decoded]()
        detect_one, decoders = _DETECT[self.signal], _TO_OTLP[self.signal]
        for offset, timestamp, value in records:
            encoding = ""
            try:
                checked(value, self.max_message_bytes)
                encoding = named or detect_one(value)
                if encoding == JSON_LINES:
                    self._add_otlp(found)
                    size, found = 0, []
                    self._add_json(offset, timestamp, value)
                    continue
                otlp = text_logs.logs(value, timestamp) if encoding == TEXT else decoders[encoding](value)
                if self.redactor is not None:
                    otlp = self.redactor.message(otlp, self.signal)
            except Malformed as error:
                self._bury_message(offset, timestamp, value, encoding, error.reason, error.detail)
                continue
            found.append((offset, timestamp, value, otlp, encoding))
            size += len(otlp)
            if size >= BATCH_BYTES:
                self._add_otlp(found)
                size, found = 0, []
        self._add_otlp(found)

    def _add_otlp(self, messages: list[_Decoded]) -> None:
        """What several were decoded to."""
        if messages:
            otlp = Records.of((offset, timestamp, otlp) for offset, timestamp, _, otlp, _ in messages)
            self._take_apart(otlp, messages.__getitem__)

    def _take_apart(self, otlp: Records, message: Callable[[int], _Decoded]) -> None:
        """Messages of OTLP; `message` has each as it came."""
        rows, traces, data, places = self._raw, self.signal == "traces", otlp.data, list(otlp.places)
        rows.scan(data, otlp.ends, otlp.starts)
        unfit: Unfit = [(rows, self._builders.add(data, rows, places, True), Reason.SPAN_TOO_LARGE)]
        if traces:
            unfit += without_ids(rows)
        elif rows.nameless:
            large = self._builders.add(data, rows.nameless, places, False)
            unfit.append((rows.nameless, large, Reason.SPAN_TOO_LARGE))
        for number, detail in rows.bad:
            offset, timestamp, raw, _, encoding = message(number)
            self._bury_message(offset, timestamp, raw, encoding, Reason.MALFORMED, detail)
        if any(numbers for _, numbers, _ in unfit):
            self._bury_rows(message, data, unfit)

    def _bury_rows(self, whole: Callable[[int], _Decoded], data: bytes, unfit: Unfit) -> None:
        """A row of several is buried alone, as OTLP; a message's only row in the bytes it came in; many together."""
        own, wrap = self._raw, traces_data if self.signal == "traces" else logs_data
        of_message = Counter(own.message) + Counter(own.nameless.message) + Counter(own.spanless.message)
        found = by_message(unfit)
        buried: Counter[int] = Counter()
        for (message, _), several in found.items():
            buried[message] += len(several)
        self.lost += sum(number == of_message[message] for message, number in buried.items())
        for (message, reason), several in found.items():
            offset, timestamp, raw, _, _ = whole(message)
            only = of_message[message] == 1 and self.redactor is None
            for each in grouped(several, header_bytes):
                each = sorted(each, key=item_of)
                value = raw if only else wrap(group_of(data, row) for row in each)
                detail = f"{len(each)} rows" if len(each) > 1 else ""
                self._bury(offset, timestamp, item_of(each[0]), value, reason, detail, wrapped=not only)

    def _add_json(self, offset: int, timestamp: int, value: bytes) -> None:
        lines = [self._looked_into(line) for line in parse(value)]
        bad = next((line for line in lines if isinstance(line, BadLine)), None)
        found = {item: self._made(line, timestamp) for item, line in enumerate(lines) if isinstance(line, LogRow)}
        if not found:
            # Not JSON lines at all: whole, since it was cut at bytes that are no line ends in what it really is.
            raise Malformed(bad.reason, bad.detail) if bad else Malformed(Reason.EMPTY_MESSAGE)
        several: dict[Reason, list[tuple[int, BadLine]]] = {}
        for item, line in enumerate(lines):
            if isinstance(line, BadLine):
                several.setdefault(line.reason, []).append((item, line))
        for reason, bad_lines in several.items():
            for each in grouped(bad_lines):
                item, first = each[0]
                detail = first.detail if len(each) == 1 else f"{len(each)} lines; the first: {first.detail}"
                self._bury_raw(offset, timestamp, item, b"\n".join(line.data for _, line in each), reason, detail)
        large = 0
        for traced in (True, False):
            data, rows = _rows({item: line for item, line in found.items() if _traced(line) == traced})
            for row in self._builders.add(data, rows, [(offset, timestamp)], traced):
                large += 1
                alone = logs_data([group_of(data, (rows, row))])
                self._bury(offset, timestamp, rows.item[row], alone, Reason.SPAN_TOO_LARGE, "", wrapped=True)
        self.lost += large == len(found)

    def _looked_into(self, line: LogRow | BadLine) -> LogRow | BadLine:
        """Below some depth a value is the text of its JSON, whose keys redaction does not see."""
        if isinstance(line, LogRow) and line.too_deep and self.redactor is not None and self.redactor.keyed:
            return BadLine(line.too_deep, Reason.MALFORMED, "nested too deeply to be redacted")
        return line

    def _made(self, line: LogRow, timestamp: int) -> LogRow:
        line = line._replace(record=log_observed(line.record, timestamp))
        if self.redactor is None:
            return line
        part = self.redactor.part
        return line._replace(
            record=part(line.record, "logs.v1.LogRecord"),
            resource=part(line.resource, "logs.v1.ResourceLogs"),
            scope=part(line.scope, "logs.v1.ScopeLogs"),
        )

    def _bury_message(self, offset: int, timestamp: int, value: bytes, encoding: str, reason: str, detail: str) -> None:
        """Bury a message of which nothing can be used; `encoding` is what it was taken for, if it came to that."""
        detail = f"taken for {encoding}: {detail}" if self.encoding == AUTO and encoding else detail
        self._bury_raw(offset, timestamp, 0, value, reason, detail)
        self.lost += 1

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
        self._dead_bytes += len(value) + LETTER_BYTES

    def flush(self, mark: int | None, raw_topics: Mapping[str, int]) -> Flush:
        """Everything since the last flush; every output partition gets an envelope that carries the mark."""
        count = self._builders.rows
        own: dict[int, list[EnvelopeBuilder]] = {}
        for target, one in self._builders.take():
            own.setdefault(target, []).append(one)
        untraced = [(one.rows, one.encode(self._envelope())) for one in own.pop(UNTRACED, [])]
        envelopes: dict[int, list[bytes]] = {}
        for target in range(self.partitions):
            mine = own.get(target, [])
            marked = self._envelope(NO_MARK if mark is None else mark, raw_topics)
            last = mine[-1].encode(marked) if mine else marked.encode()
            envelopes[target] = [*(one.encode(self._envelope()) for one in mine[:-1]), last]
        self._dead.sort(key=lambda letter: (letter.offset, letter.index))
        flushed = Flush(envelopes, untraced, self._dead, count)
        self._dead, self._dead_bytes, self.lost = [], 0, 0
        return flushed

    def _envelope(self, mark: int = NO_MARK, raw_topics: Mapping[str, int] = MappingProxyType({})) -> Envelope:
        return Envelope(self.partitions, self.topic, self.partition, mark, dict(raw_topics))


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
        rows.message.append(0)
        rows.item.append(item)
        rows.keys.append(trace_key(line.trace_id) if _traced(line) else 0)
    rows.resources, rows.scopes = list(resources), list(scopes)
    return b"".join(line.record for line in lines.values()), rows
