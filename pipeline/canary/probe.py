"""The canary's trace: two spans that failed and one error log, each in a message of its own.

Of kind internal, so that no dashboard or alert takes it for a service's requests; of one service and with fixed names,
so that it has one series of each metric for ever.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogsData, SeverityNumber
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status, TracesData

SERVICE = "tailrace-canary"
SPANS, LOGS = 2, 1
SPAN_NS = 1_000_000
_RESOURCE = Resource(attributes=[KeyValue(key="service.name", value=AnyValue(string_value=SERVICE))])


@dataclass(frozen=True, slots=True)
class Probe:
    """One trace. `sent_ns` is the wall clock when it was made, `sent` the monotonic one in seconds."""

    trace_id: bytes
    sent_ns: int
    sent: float

    def spans(self) -> list[bytes]:
        """TracesData messages, the child first: it may take another way than its parent."""
        child, root = self._span_id(1), self._span_id(0)
        return [self._message(child, root, "canary child"), self._message(root, b"", "canary")]

    def logs(self) -> list[bytes]:
        """LogsData messages."""
        data = LogsData()
        data.resource_logs.add(resource=_RESOURCE).scope_logs.add().log_records.add(
            time_unix_nano=self.sent_ns,
            observed_time_unix_nano=self.sent_ns,
            severity_number=SeverityNumber.SEVERITY_NUMBER_ERROR,
            severity_text="ERROR",
            body=AnyValue(string_value="canary: looks for itself at the other end"),
            trace_id=self.trace_id,
            span_id=self._span_id(1),
        )
        return [bytes(data.SerializeToString())]

    def _message(self, span_id: bytes, parent: bytes, name: str) -> bytes:
        data = TracesData()
        data.resource_spans.add(resource=_RESOURCE).scope_spans.add().spans.add(
            trace_id=self.trace_id,
            span_id=span_id,
            parent_span_id=parent,
            name=name,
            kind=Span.SPAN_KIND_INTERNAL,
            start_time_unix_nano=self.sent_ns,
            end_time_unix_nano=self.sent_ns + SPAN_NS,
            status=Status(code=Status.STATUS_CODE_ERROR, message="a canary's error is its way through every policy"),
        )
        return bytes(data.SerializeToString())

    def _span_id(self, number: int) -> bytes:
        return (int.from_bytes(self.trace_id[8:]) ^ (number + 1)).to_bytes(8)


def probe(rng: random.Random, now_ns: int, monotonic: float) -> Probe:
    """A new trace."""
    return Probe(rng.randbytes(16), now_ns, monotonic)
