"""The two OTLP services that a sink calls, whatever carries the call, and what their answers say.

Source: opentelemetry/proto/collector/{trace,logs}/v1.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf.json_format import Parse, ParseError
from google.protobuf.message import DecodeError
from google.rpc import code_pb2
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from sinks.contract import Outcome, Refusal
from sinks.http import ANSWER_BYTES, shortened
from sinks.settings import LOGS_PATH, TRACES_PATH

REFUSING = frozenset(
    {code_pb2.INVALID_ARGUMENT, code_pb2.FAILED_PRECONDITION, code_pb2.ALREADY_EXISTS, code_pb2.INTERNAL}
)
"""Codes that refuse a request for what is in it. INTERNAL is the Collector's for every permanent error."""

PARTIAL_SUCCESS = b"\x0a"  # the tag of that field: the first byte of an answer that has it
PARTIAL_SUCCESS_JSON = b'{"partialSuccess"'


@dataclass(frozen=True, slots=True)
class Service:
    """Where a signal is exported: the path of OTLP/HTTP, the method of OTLP/gRPC; `rows` is what it counts."""

    path: str
    method: str
    response: Any
    rejected: str
    rows: str

    def accepted(self, answer: bytes, items: int, shown: Callable[[str], str] = str, *, json: bool = False) -> Outcome:
        """What a success says of the `items` of its request; `shown` gives what may be shown of a text.

        Of a partial success only the number is told, not which rows were rejected: all become dead letters, so that
        those are among them, and the number counts as refused. A body that is not protobuf (`json`: JSON, in which some
        answer whatever they were asked in) rejects none; of one that was cut, because its text is so long, nobody knows
        the number, so it is all. A text about none that is rejected is a warning: the `detail`.
        """
        try:
            partial = self._read(answer, json).partial_success
        except (DecodeError, ParseError):
            began = answer.startswith(PARTIAL_SUCCESS_JSON if json else PARTIAL_SUCCESS)
            if len(answer) < ANSWER_BYTES or not began:
                return Outcome(accepted=items)
            text = f"partial success: nobody knows of how many of {items} {self.rows}, the answer was too long"
            return Outcome(0, refused=tuple(Refusal(index, text, said=text) for index in range(items)))
        rejected, said = min(getattr(partial, self.rejected), items), shown(partial.error_message)
        if rejected <= 0:
            return Outcome(accepted=items, detail=said)
        text = f"partial success: {rejected} of {items} {self.rows} rejected: {shortened(said)}"
        refused = tuple(Refusal(index, text, said=said) for index in range(items))
        return Outcome(items - rejected, refused=refused)

    def is_answer(self, answer: bytes) -> bool:
        """Whether a body is one of this service in protobuf: over gRPC nothing else can be."""
        try:
            self._read(answer, json=False)
        except DecodeError:
            return False
        return True

    def _read(self, answer: bytes, json: bool) -> Any:
        """The response in it. Raises DecodeError, ParseError."""
        if json:
            return Parse(answer.decode("utf-8", "replace"), self.response(), ignore_unknown_fields=True)
        return self.response.FromString(answer)


TRACES = Service(
    TRACES_PATH,
    "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    ExportTraceServiceResponse,
    "rejected_spans",
    "spans",
)
LOGS = Service(
    LOGS_PATH,
    "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
    ExportLogsServiceResponse,
    "rejected_log_records",
    "log records",
)
