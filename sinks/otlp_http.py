"""OTLP/HTTP: export requests as POSTs of binary protobuf."""

from __future__ import annotations

from sinks.contract import Outcome, Unavailable
from sinks.endpoints import Endpoints
from sinks.http import AWAY, HttpClient, Rejected
from sinks.otlp_service import Service
from sinks.settings import Sink

PROTOBUF = "application/x-protobuf"


class OverHttp:
    """Posts to one of the sink's servers, until that one does not answer."""

    def __init__(self, settings: Sink) -> None:
        self._endpoints = Endpoints(settings.urls)
        self._gzip = settings.compression != "none"
        self._http = HttpClient(settings)

    async def open(self) -> None:
        """Make the connection pool."""
        await self._http.open()

    async def close(self) -> None:
        """Close connections."""
        await self._http.close()

    async def export(self, service: Service, body: bytes, items: int) -> Outcome | Rejected:
        """Post it to the service's path."""
        server = self._endpoints.current
        try:
            answer = await self._http.post(server + service.path, body, {"Content-Type": PROTOBUF}, gzip=self._gzip)
        except Unavailable:
            self._endpoints.failed(server)
            raise
        if answer.ok:
            return service.accepted(answer.body, items)
        if answer.status in AWAY:
            self._endpoints.failed(server)
        return self._http.outcome(answer, items)
