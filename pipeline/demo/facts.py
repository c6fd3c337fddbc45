"""What the generator says happened: spans, log records and the messages that carry them.

Facts are the truth that the ledger keeps; `encoding` turns them into the bytes that producers really send.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

Value = str | int | float | bool

INTERNAL = int(Span.SPAN_KIND_INTERNAL)
SERVER = int(Span.SPAN_KIND_SERVER)
CLIENT = int(Span.SPAN_KIND_CLIENT)
PRODUCER = int(Span.SPAN_KIND_PRODUCER)
CONSUMER = int(Span.SPAN_KIND_CONSUMER)

UNSET = int(Status.STATUS_CODE_UNSET)
OK = int(Status.STATUS_CODE_OK)
ERROR = int(Status.STATUS_CODE_ERROR)

# Severity numbers of OTLP: the first of each name's four.
SEVERITIES = {"DEBUG": 5, "INFO": 9, "WARN": 13, "ERROR": 17}

UID = "log.record.uid"
"""The attribute of OpenTelemetry's conventions that identifies a log record: how the ledger knows it again."""


@dataclass(frozen=True, slots=True)
class SpanFact:
    """One span. Times are nanoseconds since the Unix epoch, `parent` is b"" for a root."""

    trace_id: bytes
    span_id: bytes
    parent: bytes
    service: str
    name: str
    kind: int
    status: int
    start_ns: int
    end_ns: int
    attributes: dict[str, Value] = field(default_factory=dict)
    exception: str = ""

    @property
    def identity(self) -> tuple[str, str, int, int]:
        """What span metrics count by: service, name, kind, status."""
        return (self.service, self.name, self.kind, self.status)


@dataclass(frozen=True, slots=True)
class LogFact:
    """One log record; `trace_id` and `span_id` are b"" for a log without a trace."""

    uid: str
    service: str
    time_ns: int
    severity: str
    body: str
    trace_id: bytes = b""
    span_id: bytes = b""
    attributes: dict[str, Value] = field(default_factory=dict)

    @property
    def error(self) -> bool:
        """True for a log that must keep its trace."""
        return SEVERITIES[self.severity] >= SEVERITIES["ERROR"]


@dataclass(frozen=True, slots=True)
class TraceFacts:
    """One request: its spans in the order in which they ended, and the logs written meanwhile."""

    spans: tuple[SpanFact, ...]
    logs: tuple[LogFact, ...]

    @property
    def start_ns(self) -> int:
        """When the first span began."""
        return min(span.start_ns for span in self.spans)

    @property
    def end_ns(self) -> int:
        """When the last span ended."""
        return max(span.end_ns for span in self.spans)

    @property
    def error(self) -> bool:
        """True if a span or a log says so."""
        return any(span.status == ERROR for span in self.spans) or any(log.error for log in self.logs)


@dataclass(frozen=True, slots=True)
class Message:
    """One Kafka message: where it goes, when (`at` seconds after the start of the traffic), what it truly holds.

    `dead_letters` is how many records of the dead-letter queue it must become: 1 for a broken message or line.
    """

    at: float
    topic: str
    partition: int
    value: bytes
    spans: tuple[SpanFact, ...] = ()
    logs: tuple[LogFact, ...] = ()
    dead_letters: int = 0
