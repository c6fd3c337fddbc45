"""Kept spans to Jaeger, or anything else that takes OTLP/HTTP as binary protobuf.

Spans go out as they came in; what decided about them is appended to their bytes as further attributes. Sources: OTLP
specification 1.x, "OTLP/HTTP Response" and "Partial Success".

Sending is at-least-once: when an answer is lost the spans are sent again, and Jaeger may show them twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from google.protobuf.message import DecodeError
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceResponse

from schemas.envelope import Envelope, RowVerdict
from schemas.otlp_build import span_attribute, traces_data
from sinks.contract import Coordinates, Destination, Item, Outcome, Refusal, Request, Signal, SourceRecord
from sinks.http import Answer, HttpClient, Rejected, bisect, shortened
from sinks.settings import Sink

POLICY = "tailsampling.policy"  # the attribute of the Collector's processor.tailsamplingprocessor.recordpolicy
THRESHOLD = "tailsampling.threshold"  # `th` as in tracestate: hexadecimal, trailing zeros cut
PROTOBUF = "application/x-protobuf"


@dataclass(slots=True, kw_only=True)
class SpanItem(Item):
    """One span: `row` as it came, `wire` as it goes, under its Resource and Scope headers."""

    resource: bytes
    scope: bytes
    row: bytes
    wire: bytes

    def dead_letter(self) -> bytes:
        """An ExportTraceServiceRequest with this span as it came."""
        return traces_data([(self.resource, self.scope, [self.row])])


class Jaeger(Destination[SpanItem]):
    """OTLP/HTTP at `endpoint`/v1/traces. Requests are not ordered: a trace may arrive in any number of them."""

    signal: ClassVar[Signal] = "spans"

    def __init__(self, settings: Sink) -> None:
        self._url = f"{settings.endpoint.rstrip('/')}/v1/traces"
        self._gzip = settings.compression == "gzip"
        self._http = HttpClient(settings)

    async def start(self) -> None:
        """Nothing to install: the first request shows whether Jaeger is there."""
        await self._http.open()

    async def close(self) -> None:
        """Close connections."""
        await self._http.close()

    def encode(self, record: SourceRecord) -> list[SpanItem]:
        """The spans of an envelope of `kept.spans`. A header's bytes count for the first span that has it."""
        envelope = Envelope.decode(record.value)
        suffixes: dict[RowVerdict | None, bytes] = {None: b""}
        headers: set[tuple[int, int]] = set()
        items = []
        for index in range(len(envelope)):
            verdict = envelope.verdicts[index] if envelope.verdicts else None
            suffix = suffixes.get(verdict)
            if suffix is None and verdict is not None:
                suffix = suffixes[verdict] = decided(verdict)
            row = envelope.row(index)
            wire = row + suffix if suffix else row
            size = len(wire)
            resource, scope = envelope.resource[index], envelope.scope[index]
            if (resource, scope) not in headers:
                headers.add((resource, scope))
                size += len(envelope.resources[resource]) + len(envelope.scopes[scope])
            items.append(
                SpanItem(
                    origin=Coordinates(
                        envelope.topic,
                        envelope.partition,
                        *envelope.messages[envelope.message[index]],
                        envelope.item[index],
                    ),
                    size=size,
                    redelivered=record.redelivered,
                    resource=envelope.resources[resource],
                    scope=envelope.scopes[scope],
                    row=row,
                    wire=wire,
                )
            )
        return items

    def request(self, items: Sequence[SpanItem]) -> Request[SpanItem]:
        """An ExportTraceServiceRequest in which equal Resources and Scopes occur once."""
        resources: dict[bytes, dict[bytes, list[bytes]]] = {}
        for item in items:
            resources.setdefault(item.resource, {}).setdefault(item.scope, []).append(item.wire)
        groups = [(r, s, spans) for r, scopes in resources.items() for s, spans in scopes.items()]
        return Request(items, traces_data(groups))

    async def send(self, request: Request[SpanItem]) -> Outcome:
        """Post it; on 400 and the like find the spans that are to blame."""

        async def attempt(items: Sequence[SpanItem]) -> Outcome | Rejected:
            part = request if len(items) == len(request.items) else self.request(items)
            answer = await self._http.post(self._url, part.body, {"Content-Type": PROTOBUF}, gzip=self._gzip)
            rejected, message = partial_success(answer) if answer.ok else (0, "")
            if rejected:
                return partly(len(items), rejected, message)
            return self._http.outcome(answer, len(items))

        return await bisect(request.items, attempt)


def decided(verdict: RowVerdict) -> bytes:
    """What decided about a span, as fields to append to its bytes: its policy and, unless certain, its threshold.

    A threshold is 56 bits, written as the consistent probability sampling specification has it in `th`.
    """
    fields = span_attribute(POLICY, verdict.policy) if verdict.policy else b""
    if verdict.threshold:
        fields += span_attribute(THRESHOLD, f"{verdict.threshold:014x}".rstrip("0"))
    return fields


def partial_success(answer: Answer) -> tuple[int, str]:
    """How many spans a 2xx rejected after all, and why. A body that is not protobuf rejects none."""
    try:
        partial = ExportTraceServiceResponse.FromString(answer.body).partial_success
    except DecodeError:
        return 0, ""
    return partial.rejected_spans, partial.error_message


def partly(items: int, rejected: int, message: str) -> Outcome:
    """`rejected` of `items` spans were refused, and which ones is not said: all of them are kept as dead letters."""
    rejected = min(rejected, items)
    text = f"partial success: {rejected} of {items} spans rejected: {shortened(message)}"
    refused = tuple(Refusal(index, text) for index in range(items))
    return Outcome(accepted=items - rejected, refused=refused)
