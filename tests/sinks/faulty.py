"""A local server for the faults that real ones cannot be made to show: waits asked for, resets, lost answers."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web

from tests.services.serving import serving


@dataclass(slots=True)
class Seen:
    """One request that came."""

    path: str
    headers: dict[str, str]
    body: bytes


Reply = Callable[[web.Request, bytes], Awaitable[web.StreamResponse] | web.StreamResponse]


@dataclass(slots=True)
class FaultyServer:
    """Answers the n-th request with the n-th reply, and all further ones with the last.

    A request with the body `taken` is one that any receiver takes: it gets 204 and is none of those.
    """

    replies: list[Reply]
    taken: bytes | None = None
    seen: list[Seen] = field(default_factory=list)
    url: str = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        if body == self.taken:
            return web.Response(status=204)
        reply = self.replies[min(len(self.seen), len(self.replies) - 1)]
        self.seen.append(Seen(request.path, dict(request.headers), body))
        answer = reply(request, body)
        return answer if isinstance(answer, web.StreamResponse) else await answer


def status(code: int, text: str = "", **headers: str) -> Reply:
    """An answer with this status; `_` in the names of headers stands for `-`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda request, body: web.Response(status=code, text=text, headers=named)


def json(content: object, code: int = 200) -> Reply:
    """An answer of Elasticsearch: its client refuses those that do not name the product."""
    return lambda request, body: web.json_response(content, status=code, headers={"X-Elastic-Product": "Elasticsearch"})


def reset(request: web.Request, body: bytes) -> web.StreamResponse:
    """No answer: the connection is reset once the request has been read."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


@asynccontextmanager
async def faulty(
    *replies: Reply, tls: ssl.SSLContext | None = None, taken: bytes | None = None
) -> AsyncIterator[FaultyServer]:
    """A server on a free port for as long as the block lasts."""
    server = FaultyServer(list(replies), taken)
    async with serving(server.handle, tls) as server.url:
        yield server
