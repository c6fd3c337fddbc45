"""OTLP/HTTP: export requests as POSTs of binary protobuf.

A server that fails says so with a Status in protobuf. One of 500 whose code is permanent refuses the request, as over
gRPC: with that a Collector answers a request that it will never take. Any other 500 says nothing of the rows.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from http import HTTPStatus
from urllib.parse import urlsplit

from google.protobuf.message import DecodeError
from google.rpc import code_pb2
from google.rpc.status_pb2 import Status

from sinks.contract import Outcome, Unavailable
from sinks.endpoints import Endpoints
from sinks.http import AWAY, Answer, HttpClient, Rejected, unsaid
from sinks.otlp_service import REFUSING, Service
from sinks.receiver import Receiver, Reply
from sinks.settings import Sink

PROTOBUF, JSON = "application/x-protobuf", "application/json"
IS_IT_OTLP = "is the endpoint that of OTLP/HTTP, and https:// if the server has TLS?"


class OverHttp:
    """Posts to one of the sink's servers, until that one does not answer."""

    def __init__(self, settings: Sink) -> None:
        self._endpoints = Endpoints(settings.urls)
        self._gzip = settings.compression != "none"
        self._http = HttpClient(settings)
        self._receivers: dict[str, Receiver] = {}

    async def open(self) -> None:
        """Make the connection pool."""
        await self._http.open()

    async def close(self) -> None:
        """Close connections."""
        await self._http.close()

    async def export(self, service: Service, body: bytes, items: int) -> Outcome | Rejected:
        """Post it to the service's path."""
        server = self._endpoints.current
        receiver = self._receivers.setdefault(at(server, service.path), Receiver(b"", IS_IT_OTLP))
        return await receiver.sent(partial(self._post, service, server, items), body, items)

    async def _post(self, service: Service, server: str, items: int, body: bytes) -> Reply:
        try:
            answer = await self._http.post(at(server, service.path), body, {"Content-Type": PROTOBUF}, gzip=self._gzip)
        except Unavailable:
            self._endpoints.failed(server)
            raise
        if answer.ok:
            shown = partial(unsaid, answer.url)
            accepted = service.accepted(answer.body, items, shown, json=answer.media_type == JSON)
            return Reply(answer.status, accepted, True)
        return Reply(answer.status, self._failure(server, answer, items), answer.media_type == PROTOBUF)

    def _failure(self, server: str, answer: Answer, items: int) -> Outcome | Rejected:
        code, said = _status(answer)
        answer = replace(answer, body=said)
        if answer.status == HTTPStatus.INTERNAL_SERVER_ERROR and code in REFUSING:
            return answer.rejected
        outcome = self._http.outcome(answer, items)
        if answer.status in AWAY and isinstance(outcome, Outcome):
            return replace(outcome, retry_after=self._endpoints.failed(server, outcome.retry_after))
        return outcome


def at(server: str, path: str) -> str:
    """The URL of a path below a base URL, whose parameters stay behind it.

    >>> at("https://otlp:4318/tenant?token=a", "/v1/traces")
    'https://otlp:4318/tenant/v1/traces?token=a'
    """
    url = urlsplit(server)
    return url._replace(path=url.path.rstrip("/") + path).geturl()


def _status(answer: Answer) -> tuple[int, bytes]:
    """The code and the words of the Status of an answer; of one without a Status 0 and what it says."""
    if answer.media_type != PROTOBUF:
        return code_pb2.OK, answer.body
    try:
        status = Status.FromString(answer.body)
    except DecodeError:
        return code_pb2.OK, answer.body
    words = status.message or (code_pb2.Code.Name(status.code) if status.code in REFUSING else "")
    return status.code, words.encode()
