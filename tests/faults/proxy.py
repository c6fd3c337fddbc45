"""A proxy in front of a real destination: it misbehaves as it is told, and knows what came through.

It answers for the server (429, 500, 503, failed items), resets, holds back or refuses connections, is slow, or lets a
request through and loses the answer. `passages` has every request that the server was given: what was in it, whether
the server took it, and whether the sink was told.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import aiohttp
from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.services.process import HOST, free_port

RETRY_AFTER_SECONDS = 1
SLOW_SECONDS = 0.7
UPSTREAM_SECONDS = 60.0
MOST_BYTES = 64 << 20
HOP_BY_HOP = frozenset({"host", "connection", "keep-alive", "transfer-encoding", "content-length", "expect"})
PRODUCT = {"X-Elastic-Product": "Elasticsearch"}  # without it the client of Elasticsearch believes no answer


@dataclass(slots=True)
class Passage:
    """A request that went through to the server. `at` is of this process (monotonic), `seconds` until the answer."""

    at: float
    keys: list[str]
    accepted: bool = False
    answered: bool = False
    seconds: float = 0.0


@dataclass(slots=True)
class Proxy:
    """One destination's. `keys` names what is in a request, by path and body."""

    target: str
    keys: Callable[[str, bytes], list[str]] = lambda path, body: []
    mode: str = "pass"
    passages: list[Passage] = field(default_factory=list)
    hindered: int = 0  # requests that a fault met
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    _port: int = field(default_factory=free_port)
    _runner: web.AppRunner | None = None
    _upstream: aiohttp.ClientSession | None = None
    _changed: asyncio.Event = field(default_factory=asyncio.Event)
    _under_way: set[asyncio.Task[Answer | None]] = field(default_factory=set)

    @property
    def url(self) -> str:
        """Where the sink is to send to."""
        return f"http://{HOST}:{self._port}"

    async def open(self) -> None:
        """Listen."""
        if self._upstream is None:
            timeout = aiohttp.ClientTimeout(total=UPSTREAM_SECONDS)
            self._upstream = aiohttp.ClientSession(timeout=timeout, auto_decompress=False)
        app = web.Application(client_max_size=MOST_BYTES)
        app.router.add_route("*", "/{path:.*}", self._handle)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0, auto_decompress=False)
        await self._runner.setup()
        await web.TCPSite(self._runner, HOST, self._port).start()

    async def close(self) -> None:
        """Listen no longer; what the server was given, it answers."""
        self._changed.set()
        await self._shut()
        await asyncio.gather(*self._under_way, return_exceptions=True)
        if self._upstream is not None:
            await self._upstream.close()

    async def _shut(self) -> None:
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def behave(self, mode: str) -> None:
        """From now on: "pass", or one of the faults of sinks (schedule.py)."""
        self._changed.set()
        self._changed = asyncio.Event()
        if mode == "refuse":
            await self._shut()
        elif self._runner is None:
            await self.open()
        self.mode = mode

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body, mode = await request.read(), self.mode
        self.hindered += mode != "pass"
        if mode == "reset":
            return _reset(request)
        if mode == "time out":
            await self._changed.wait()
            return _reset(request)
        if mode in ("429", "500", "503"):
            headers = {"Retry-After": str(RETRY_AFTER_SECONDS)} | PRODUCT
            return web.Response(status=int(mode), text='{"error": "as ordered"}', headers=headers)
        if mode == "slow":
            await asyncio.sleep(SLOW_SECONDS)
        failed = 0
        if mode == "fail items" and request.path.endswith("/_bulk"):
            body, failed = first_half(body, request.headers)
        answer = await self._forward(request, body, mode != "lose answers") if body or not failed else NOTHING
        if answer is None or mode == "lose answers":
            return _reset(request)
        if failed:
            answer = with_failed(answer, failed)
        return web.Response(status=answer.status, body=answer.body, headers=answer.headers)

    async def _forward(self, request: web.Request, body: bytes, answers: bool) -> Answer | None:
        """The server's answer; it gets the request to its end even if the sink is gone meanwhile."""
        passage = Passage(time.monotonic(), self.keys(request.path, plain(body, request.headers)))
        self.passages.append(passage)
        task = asyncio.create_task(self._send(request, body, passage))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        answer = await asyncio.shield(task)
        # The kernel may still lose it: then the sink or the worker is gone, which is a fault of its own.
        transport = request.transport
        passage.answered = answers and transport is not None and not transport.is_closing()
        passage.seconds = time.monotonic() - passage.at
        return answer

    async def _send(self, request: web.Request, body: bytes, passage: Passage) -> Answer | None:
        assert self._upstream is not None
        sent = {name: value for name, value in request.headers.items() if name.lower() not in HOP_BY_HOP}
        url = f"{self.target}{request.rel_url.raw_path_qs}"
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with self._upstream.request(request.method, url, data=body, headers=sent) as response:
                content = await response.read()
                passage.accepted = response.status < 300
                kept = {n: v for n, v in response.headers.items() if n.lower() not in HOP_BY_HOP}
                return Answer(response.status, content, kept)
        return None


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server said."""

    status: int
    body: bytes
    headers: dict[str, str]


NOTHING = Answer(200, b'{"took": 0, "errors": true, "items": []}', {"Content-Type": "application/json"} | PRODUCT)
FAILED = {"create": {"status": 429, "error": {"type": "es_rejected_execution_exception", "reason": "as ordered"}}}


def _reset(request: web.Request) -> web.StreamResponse:
    if request.transport is not None:
        request.transport.abort()
    return web.Response()


def plain(body: bytes, headers: Mapping[str, str]) -> bytes:
    """A body as it was before compression."""
    return gzip.decompress(body) if headers.get("Content-Encoding") == "gzip" else body


def first_half(body: bytes, headers: Mapping[str, str]) -> tuple[bytes, int]:
    """The first half of a bulk request (compressed as it came), and how many of its documents are left out."""
    lines = plain(body, headers).splitlines(keepends=True)
    documents = len(lines) // 2
    half = b"".join(lines[: 2 * (documents // 2)])
    compress = headers.get("Content-Encoding") == "gzip" and half
    return gzip.compress(half) if compress else half, documents - documents // 2


def with_failed(answer: Answer, failed: int) -> Answer:
    """A bulk answer with so many documents more, which the server was too busy for."""
    body = json.loads(plain(answer.body, answer.headers))
    body |= {"errors": True, "items": [*body["items"], *[FAILED] * failed]}
    headers = {name: value for name, value in answer.headers.items() if name.lower() != "content-encoding"}
    return Answer(answer.status, json.dumps(body).encode(), headers)


def spans_in(path: str, body: bytes) -> list[str]:
    """The spans of an export request: trace id and span id, in hex."""
    if path != "/v1/traces":
        return []
    message = ExportTraceServiceRequest.FromString(body)
    return [
        f"{span.trace_id.hex()}/{span.span_id.hex()}"
        for resource in message.resource_spans
        for scope in resource.scope_spans
        for span in scope.spans
    ]
