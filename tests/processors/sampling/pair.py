"""Partition 0 of spans, logs and decisions as lists, and owners that drive a Window over them as `sample` does."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from opentelemetry.proto.logs.v1.logs_pb2 import (
    SEVERITY_NUMBER_ERROR,
    SEVERITY_NUMBER_INFO,
    SEVERITY_NUMBER_WARN,
    LogRecord,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from processors.sampling.compile import Plan, compile_policies
from processors.sampling.policies import Policy
from processors.sampling.stats import Stats
from processors.sampling.window import Burst, Settings, Window
from processors.span_metrics import SpanMetrics
from schemas.decision import Checkpoint, DecisionRecord, Verdict
from schemas.envelope import NO_MARK, Envelope, RowVerdict
from schemas.ids import trace_key
from schemas.otlp_build import traces_data
from schemas.raw_batch import RawBatch, RawReader
from tests.schemas.rows import scan_span

START = 1_700_000_000_000  # ms
SPANS, LOGS = "tailrace.spans", "tailrace.logs"
WAIT, HORIZON = 10_000, 60_000
DUE = WAIT // 1000 + 1  # seconds after which a trace that began at 0 is decided
LATE = HORIZON // 1000
SETTINGS = Settings(
    1, SPANS, LOGS, WAIT, HORIZON, stall_limits={"raw_logs": 60_000}, ingest_stall_limit=300_000, cache_bytes=1 << 20
)
RAW = {"raw_spans": 1, "raw_logs": 1}


def plan(*more: Policy) -> Plan:
    """Errors of spans and of logs are kept, and what `more` says."""
    errors = {"name": "errors", "type": "status_code", "status_code": {"status_codes": ["ERROR"]}}
    logs = {"name": "error-logs", "type": "log_severity", "log_severity": {"min_severity": "ERROR"}}
    policies = [Policy.model_validate(errors), Policy.model_validate(logs), *more]
    return compile_policies(policies, extra_keys=["service.name"])


def trace_id(name: str) -> bytes:
    """The trace of a span or log is the first letter of its name."""
    return ord(name[0]).to_bytes(4, "big") * 4


def span_id(name: str) -> bytes:
    """Of its first two letters."""
    return (name[:2].encode() * 4)[:8]


def key(name: str) -> int:
    return trace_key(trace_id(name))


def span(name: str) -> bytes:
    """`A1`: span 1 of trace A; `A1!` failed."""
    row = Span(trace_id=trace_id(name), span_id=span_id(name), name=name)
    if name.endswith("!"):
        row.status.code = Status.STATUS_CODE_ERROR
    return bytes(row.SerializeToString())


def log(name: str) -> bytes:
    """`A1`: an INFO log of span A1; `?` WARN, `!` ERROR."""
    severity = {"!": SEVERITY_NUMBER_ERROR, "?": SEVERITY_NUMBER_WARN}.get(name[-1], SEVERITY_NUMBER_INFO)
    row = LogRecord(trace_id=trace_id(name), span_id=span_id(name), severity_number=severity)
    row.body.string_value = name
    return bytes(row.SerializeToString())


@dataclass
class Pair:
    """What Kafka holds: (append, value) by offset for the two topics, decisions by offset, the group's offsets."""

    settings: Settings = SETTINGS
    raw: Mapping[str, int] = field(default_factory=lambda: dict(RAW))
    topics: dict[str, list[tuple[int, bytes]]] = field(default_factory=lambda: {SPANS: [], LOGS: []})
    decisions: list[bytes] = field(default_factory=list)
    offsets: dict[str, int | None] = field(default_factory=dict)
    pointer: int | None = None
    more: tuple[Policy, ...] = ()
    scope: bytes = b""  # that of all rows to come

    def spans(self, at: float, *names: str, mark: float | None = -1, raw: int = 0, append: float | None = None) -> None:
        """An envelope of raw_spans/`raw`, all times in seconds: raw time `at`, mark the same unless it is given."""
        self._append(SPANS, "raw_spans", at, names, mark, raw, append)

    def logs(self, at: float, *names: str, mark: float | None = -1, raw: int = 0, append: float | None = None) -> None:
        """The same of raw_logs."""
        self._append(LOGS, "raw_logs", at, names, mark, raw, append)

    def _append(
        self, topic: str, source: str, at: float, names: tuple[str, ...], mark: float | None, raw: int,
        append: float | None,
    ) -> None:  # fmt: skip
        row = span if topic == SPANS else log
        mark = at if mark == -1 else mark
        envelope = Envelope(1, source, raw, NO_MARK if mark is None else ms(mark), dict(self.raw))
        envelope.resources, envelope.scopes, envelope.messages = (
            [b""],
            [self.scope],
            [(len(self.topics[topic]), ms(at))],
        )
        for item, name in enumerate(names):
            envelope.body += row(name)
            envelope.ends.append(len(envelope.body))
            envelope.keys.append(key(name))
            for column in (envelope.resource, envelope.scope, envelope.message):
                column.append(0)
            envelope.item.append(item)
        self.topics[topic].append((ms(at if append is None else append), envelope.encode()))

    def own(self, settings: Settings | None = None, from_start: bool = False) -> Owner:
        """A new owner, loaded from the pointer or from the first decision."""
        owner = Owner(self, settings or self.settings)
        for offset in range(0 if from_start else self.pointer or 0, len(self.decisions)):
            owner.window.load(offset, self.decisions[offset])
        owner.window.resume(self.offsets, {SPANS: 0, LOGS: 0})
        return owner

    def records(self) -> list[DecisionRecord]:
        return [DecisionRecord.decode(value) for value in self.decisions]

    def verdicts(self) -> dict[str, list[str]]:
        """Trace → what each verdict of it says: the policy, "" if it was dropped."""
        found: dict[str, list[str]] = {}
        for record in self.records():
            for trace, verdict in zip(record.keys, record.verdicts, strict=True):
                found.setdefault(chr(trace & 0xFFFFFFFF), []).append(verdict.policy)
        return found


class Owner:
    """One epoch of the pair."""

    def __init__(self, pair: Pair, settings: Settings) -> None:
        self.pair = pair
        compiled = plan(*pair.more)
        self.window = Window(0, settings, compiled, SpanMetrics("spans", [], [100.0], compiled.keys))
        self.kept_spans: list[str] = []
        self.kept_logs: list[tuple[str, RowVerdict | None]] = []
        self.counted = 0.0
        self.stats: Stats = Counter()
        self.most_again = 1 << 30  # records that the tail reads again in one go

    def read(self, *topics: str, count: int = 1 << 30) -> Owner:
        """The head of these topics (both), `count` records each."""
        for topic in topics or (SPANS, LOGS):
            position = self.window.positions()[topic]
            for offset, (append, value) in list(enumerate(self.pair.topics[topic]))[position : position + count]:
                self.window.head(topic, offset, append, value)
        return self

    def reread(self) -> None:
        """What the tail wants."""
        for topic, (position, end) in self.window.held.wanted().items():
            end = min(end, position + self.most_again)
            records = [(o, *self.pair.topics[topic][o]) for o in range(position, end)]
            self.window.reread(topic, records, end)

    def burst(self, final: bool = False) -> Burst | None:
        """One transaction, if there is anything to write; what it forwards is added to `kept_*`."""
        self.reread()
        burst = self.window.burst(final)
        if burst is not None:
            self.pair.decisions.append(burst.decisions)
            self.pair.offsets = dict(burst.tails)
            self.pair.pointer = burst.load_from
            self.window.committed(len(self.pair.decisions) - 1)
            self._see(burst)
        return burst

    def settle(self) -> Owner:
        """Read everything and burst until nothing moves."""
        self.read()
        while self.burst() is not None:
            pass
        return self

    def _see(self, burst: Burst) -> None:
        self.stats += burst.stats
        for value in burst.kept_spans:
            envelope = Envelope.decode(value)
            rows = [envelope.row(i) for i in range(len(envelope))]
            self.kept_spans += [scan_span(row, 0, len(row), {}).name.decode() for row in rows]
        for value in burst.kept_logs:
            envelope = Envelope.decode(value)
            names = [LogRecord.FromString(envelope.row(i)).body.string_value for i in range(len(envelope))]
            self.kept_logs += zip(names, envelope.verdicts, strict=True)
        for batch in burst.points:
            if batch.shape.kind == "counter":
                self.counted += sum(n for _, n in batch.rows if isinstance(n, int | float))


def ms(seconds: float) -> int:
    return START + round(seconds * 1000)


def state(owner: Owner) -> tuple[dict[int, Verdict], Checkpoint | None, dict[str, int]]:
    """What an owner knows right after it has loaded: verdicts, the merged checkpoint, positions."""
    window = owner.window
    point = window._loaded
    return dict(window._verdicts.items()), replace(point, full=True) if point else None, window.positions()


def quiet(pair: Pair, *seconds: float) -> None:
    """Nothing but marks of all raw partitions."""
    for second in seconds:
        pair.spans(second)
        pair.logs(second)


def raw_batch(offset: int, at: float, *names: str) -> RawBatch:
    """One raw message of spans."""
    value = traces_data([(b"", b"", [span(name) for name in names])])
    return RawReader(SPANS, 0, 1, "traces", 1 << 20, 1 << 20).read([(offset, ms(at), value)])
