"""The page over HTTP: static files, a stream of views, single traces, and the snapshot that peers ask for."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from importlib.resources import files
from math import inf
from typing import Any

import aiohttp
import orjson
from aiohttp import web
from aiokafka.errors import KafkaError

from pipeline.config import Config
from pipeline.live.access import HEADERS, Guard
from pipeline.live.graph import drawing
from pipeline.live.peers import BY_PEER, EXPLAIN_SECONDS, NOT_OWNER, Peer
from pipeline.live.view import Observed, Past, view
from pipeline.live.watch import Watch
from pipeline.roles import diagram
from schemas.errors import TailraceError
from schemas.kafka_client import told

log = logging.getLogger(__name__)

ROOT = "/live"
EVERY = 1.0  # seconds between two views
MOST_WATCHERS = 32  # streams at a time
LONGEST_REASON = 500  # characters of why a trace was restored
OWN = "this worker"
STATIC = {"page.css": "text/css", "page.js": "text/javascript", "icon.svg": "image/svg+xml"}
JSON = "application/json"


class Page:
    """The live page of a worker. `refresh` brings gauges up to date that are only worked out when asked for.

    `explain` is asked by trace id, `restore` with the reason too; neither has an answer (None) where another worker
    should be asked.
    """

    def __init__(
        self,
        config: Config,
        watch: Watch,
        refresh: Callable[[], Awaitable[None]],
        explain: Callable[[bytes], Awaitable[dict[str, Any] | None]] | None = None,
        restore: Callable[[bytes, str, float], Awaitable[dict[str, Any] | None]] | None = None,
    ) -> None:
        self._explain, self._restore = explain, restore
        settings = config.telemetry.live
        self._watch, self._refresh = watch, refresh
        self._graph = drawing(diagram(config))
        self._policies = {policy.name: policy.type for policy in config.sampling.policies}
        self._guard = Guard(config.telemetry, ROOT)
        self._peers = [Peer(url, config.telemetry.bearer) for url in settings.peers]
        self._past = Past()
        self._latest = b"{}"
        self._watching = 0
        self._changed = asyncio.Condition()
        self._session: aiohttp.ClientSession | None = None
        self._task: asyncio.Task[None] | None = None

    def follow(self, config: Config) -> None:
        """Another configuration runs now."""
        self._policies = {policy.name: policy.type for policy in config.sampling.policies}

    def routes(self) -> list[web.RouteDef]:
        """What the worker's server is to serve."""
        pages = {
            ROOT: self._file("page.html", "text/html"),
            f"{ROOT}/events": self._events,
            f"{ROOT}/view": self._view,
            f"{ROOT}/snapshot": self._snapshot,
            f"{ROOT}/traces/{{id:[0-9a-f]{{32}}}}": self._trace,
            f"{ROOT}/explain/{{id:[0-9a-f]{{32}}}}": self._explained,
        } | {f"{ROOT}/{name}": self._file(name, kind) for name, kind in STATIC.items()}
        return [
            *(web.get(path, self._guard(handler), allow_head=False) for path, handler in pages.items()),
            web.post(f"{ROOT}/restore/{{id:[0-9a-f]{{32}}}}", self._guard(self._restored)),
        ]

    async def start(self) -> None:
        """Begin to look."""
        self._session = aiohttp.ClientSession()
        self._task = asyncio.create_task(self._look(), name="live page")

    async def stop(self) -> None:
        """End all streams. Does not raise."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None
        async with self._changed:
            self._changed.notify_all()
        if self._session is not None:
            await self._session.close()

    # ---- looking -----------------------------------------------------------------------------------------

    async def _look(self) -> None:
        failed = False
        while True:
            try:
                await self._look_once(peers=self._watching > 0)
                async with self._changed:
                    self._changed.notify_all()
                failed = False
            except Exception as error:  # the page may be wrong; the worker goes on
                if not failed:  # said once, not every second
                    log.error("the live page failed", exc_info=error)
                failed = True
            await asyncio.sleep(EVERY)

    async def _look_once(self, peers: bool) -> None:
        """Remember what this worker says; if somebody is watching, ask the others and draw."""
        await self._refresh()
        own = self._past.observed(OWN, self._watch.snapshot())
        if not peers:
            return
        assert self._session is not None
        others = await asyncio.gather(*(peer.observed(self._session, self._past) for peer in self._peers))
        self._latest = self._encoded([own, *others])

    def _encoded(self, observed: Sequence[Observed]) -> bytes:
        shown = view(observed, time.time(), policies=self._policies, graph=self._graph, payloads=self._watch.payloads)
        return orjson.dumps(shown, default=tuple)

    # ---- answering ---------------------------------------------------------------------------------------

    def _file(self, name: str, kind: str) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        text = files(__package__).joinpath(name).read_text(encoding="utf-8")

        async def answer(_: web.Request) -> web.StreamResponse:
            return web.Response(text=text, content_type=kind)

        return answer

    async def _events(self, request: web.Request) -> web.StreamResponse:
        """Server-sent events: a view at once and then each second."""
        if self._watching >= MOST_WATCHERS:
            return web.Response(status=503, text=f"{MOST_WATCHERS} pages are open already\n")
        self._watching += 1
        # The last one is for nginx, which would hold events back.
        headers = {**HEADERS, "Content-Type": "text/event-stream; charset=utf-8", "X-Accel-Buffering": "no"}
        response = web.StreamResponse(headers=headers)
        try:
            await response.prepare(request)
            if self._watching == 1:
                await self._look_once(peers=True)
            await response.write(b"data: %b\n\n" % self._latest)
            while self._task is not None:
                async with self._changed:
                    await self._changed.wait()
                await response.write(b"data: %b\n\n" % self._latest)
        except ConnectionError:
            pass  # the page was closed
        finally:
            self._watching -= 1
        return response

    async def _view(self, _: web.Request) -> web.StreamResponse:
        """What the stream would say now."""
        await self._look_once(peers=True)
        return web.Response(body=self._latest, content_type=JSON)

    async def _snapshot(self, _: web.Request) -> web.StreamResponse:
        await self._refresh()
        return web.Response(body=self._watch.snapshot().encode(), content_type=JSON)

    async def _explained(self, request: web.Request) -> web.StreamResponse:
        """Why a trace was kept or dropped, if its partition is this worker's."""
        try:
            async with asyncio.timeout(EXPLAIN_SECONDS):  # who asked is gone by then, and others wait
                return _of_owner(None if self._explain is None else await self._explain(_trace_id(request)))
        except TimeoutError:
            return web.Response(status=503, text=f"not found out within {EXPLAIN_SECONDS:g} s\n")

    async def _restored(self, request: web.Request) -> web.StreamResponse:
        """Bring a dropped trace back, if its partition is this worker's.

        JSON alone is taken: a browser asks before it sends that to another origin, and nobody says yes.
        """
        if request.content_type != JSON:
            return web.Response(status=415, text=f"a restore is asked for as {JSON}\n")
        try:
            asked = await request.json()
            # JSON may hold half a surrogate pair, which the record of the decision could not.
            why = str(asked["why"]).encode(errors="replace").decode()[:LONGEST_REASON]
            most = float(asked.get("max_read_bytes", inf))
        except (ValueError, LookupError, TypeError, AttributeError, OverflowError):
            return web.Response(status=400, text='a restore wants {"why": "...", "max_read_bytes": 1000000}\n')
        try:
            found = None if self._restore is None else await self._restore(_trace_id(request), why, most)
        except (TailraceError, KafkaError) as error:
            return web.Response(status=503, text=f"{told(error)}\n")
        return _of_owner(found)

    async def _trace(self, request: web.Request) -> web.StreamResponse:
        """A kept trace with its logs: this worker's, or the first peer's that has it.

        A peer that asks is answered from this worker alone: peers name each other, and would ask without end.
        """
        trace_id = _trace_id(request)
        assert self._session is not None
        found = self._watch.trace(trace_id)
        if found is not None:
            return web.Response(body=orjson.dumps(found), content_type=JSON)
        for peer in () if BY_PEER in request.query else self._peers:
            if (body := await peer.trace(self._session, trace_id.hex())) is not None:
                return web.Response(body=body, content_type=JSON)
        return web.Response(status=404, text="this trace is not held any more\n")


def _trace_id(request: web.Request) -> bytes:
    return bytes.fromhex(request.match_info["id"])


def _of_owner(found: dict[str, Any] | None) -> web.Response:
    """What the owner of a trace's partition answers; None: that is another worker."""
    if found is None:
        return web.Response(status=404, text=f"{NOT_OWNER}\n")
    return web.Response(body=orjson.dumps(found), content_type=JSON)
