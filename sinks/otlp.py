"""Kept spans and logs to Jaeger, or anything else that takes OTLP: over HTTP as binary protobuf, or over gRPC.

Sources: OTLP specification 1.x, "OTLP/HTTP Response", "OTLP/gRPC Response" and "Partial Success".

Sending is at-least-once: when an answer is lost the rows are sent again, and Jaeger may show a span twice.
"""

from __future__ import annotations

from collections.abc import Sequence

from sinks.contract import Destination, Outcome, Request, Signal, SourceRecord
from sinks.http import Rejected, bisect
from sinks.otlp_grpc import OverGrpc
from sinks.otlp_http import OverHttp
from sinks.otlp_rows import RowItem, export_request, row_items
from sinks.otlp_service import LOGS, TRACES, Service
from sinks.settings import Sink

SERVICES: dict[Signal, Service] = {"spans": TRACES, "logs": LOGS}


class Otlp(Destination[RowItem]):
    """One service for each signal, each on a lane of its own. Requests are not ordered.

    A trace may arrive in any number of them.
    """

    def __init__(self, settings: Sink, signals: Sequence[Signal], consistent: bool = True) -> None:
        self._consistent = consistent
        self._signals = list(signals)
        self.lanes = len(self._signals)
        self._transport = OverGrpc(settings) if settings.protocol == "grpc" else OverHttp(settings)

    async def start(self) -> None:
        """Nothing to install: the first request shows whether the server is there."""
        await self._transport.open()

    async def close(self) -> None:
        """Close connections."""
        await self._transport.close()

    def encode(self, record: SourceRecord) -> list[RowItem]:
        """The rows of an envelope of `kept.spans`, `kept.logs` or `untraced.logs`."""
        return list(row_items(record, self._signals.index(record.signal), self._consistent))

    def request(self, items: Sequence[RowItem]) -> Request[RowItem]:
        """An export request."""
        return Request(items, export_request(items))

    async def send(self, request: Request[RowItem]) -> Outcome:
        """Export it; when it is refused find the rows that are to blame."""
        service = SERVICES[self._signals[request.items[0].lane]]

        async def attempt(items: Sequence[RowItem]) -> Outcome | Rejected:
            body = request.body if len(items) == len(request.items) else export_request(items)
            outcome = await self._transport.export(service, body, len(items))
            if isinstance(outcome, Outcome) and outcome.accepted == len(items) and outcome.detail:
                self.warned(outcome.detail)
            return outcome

        return await bisect(request, request.items, attempt)
