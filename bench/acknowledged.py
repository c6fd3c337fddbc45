"""When Elasticsearch acknowledged each log: a proxy before it that notes what passes, and reads it afterwards."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from typing import NamedTuple, Self

import orjson
from aiohttp import ClientSession, web

from tests.services.process import HOST

LARGEST_BODY = 64 << 20
ADDED = ("Accept", "Accept-Encoding", "User-Agent", "Content-Type")  # by aiohttp
NOT_PASSED_ON = {"host", "content-encoding", "content-length", "transfer-encoding", "connection"}


class Log(NamedTuple):
    """A document that was created: its text, the trace id as hex ("": none), and when, in ms since the epoch.

    `took` is how long Elasticsearch says that it needed for the request, in ms.
    """

    text: str
    trace_id: str
    acknowledged: int
    took: int


class Acknowledged:
    """The proxy, on a thread and a free port of its own. A context manager."""

    def __init__(self, upstream: str) -> None:
        self._upstream, self._passed = upstream, list[tuple[int, bytes, bytes]]()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy", daemon=True)
        self.url = ""

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def logs(self) -> Iterator[Log]:
        """Every document whose `_bulk` was answered with 2xx. A refused one would be a refused request: not here."""
        for at, body, answer in self._passed:
            took = orjson.loads(answer)["took"]
            lines = iter(body.splitlines())
            for _action in lines:
                document = orjson.loads(next(lines))
                yield Log(document["body"]["text"], document.get("trace_id", ""), at, took)

    async def _start(self) -> None:
        self._session = ClientSession(skip_auto_headers=ADDED)
        application = web.Application(client_max_size=LARGEST_BODY)
        application.router.add_route("*", "/{path:.*}", self._pass)
        self._runner = web.AppRunner(application)
        await self._runner.setup()
        site = web.TCPSite(self._runner, HOST, 0)
        await site.start()
        self.url = f"http://{HOST}:{self._runner.addresses[0][1]}"

    async def _stop(self) -> None:
        await self._runner.cleanup()
        await self._session.close()

    async def _pass(self, request: web.Request) -> web.Response:
        body = await request.read()  # aiohttp has unpacked it
        headers = {name: value for name, value in request.headers.items() if name.lower() not in NOT_PASSED_ON}
        url = f"{self._upstream}{request.path_qs}"
        async with self._session.request(request.method, url, data=body or None, headers=headers) as answer:
            told = await answer.read()
            at = int(time.time() * 1000)
            if request.path.endswith("_bulk") and answer.status < 300:
                self._passed.append((at, body, told))
            kept = {name: value for name, value in answer.headers.items() if name.lower() not in NOT_PASSED_ON}
            return web.Response(status=answer.status, body=told, headers=kept)
