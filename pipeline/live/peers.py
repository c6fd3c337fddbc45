"""Asking other workers: `/live/snapshot` where their page is on, else `/metrics`, which knows less."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from pipeline.live.snapshot import Snapshot, of_text
from pipeline.live.view import Observed, Past
from schemas.errors import Malformed, Unavailable
from schemas.http_client import in_words
from sinks.http import shortened

ANSWER_SECONDS = 2.0
EXPLAIN_SECONDS = 10.0  # it reads Kafka
LARGEST_ANSWER = 32 << 20  # bytes
BY_PEER = "by_peer"  # in the query: a worker asks for its own page
NO_PAGE = (401, 403, 404)  # it is off, or wants another token
NOT_OWNER = "this trace's partition is not held by this worker"


class Peer:
    """A worker by the address of its pages, and the token for them."""

    def __init__(self, url: str, token: str = "") -> None:
        self.url, self.name = url.rstrip("/"), urlsplit(url).netloc
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    async def observed(self, session: aiohttp.ClientSession, past: Past) -> Observed:
        """It as of now, compared with itself; if it does not answer, with the reason."""
        try:
            return past.observed(self.name, await self.snapshot(session))
        except Unavailable as error:
            return Observed(self.name, None, None, str(error))

    async def snapshot(self, session: aiohttp.ClientSession) -> Snapshot:
        """What it says now. Raises Unavailable when it does not answer, or not as a worker does."""
        status, body = await self._get(session, "/live/snapshot", self._headers)
        try:
            if status == 200:
                return Snapshot.decode(body)
            if status in NO_PAGE:
                status, body = await self._get(session, "/metrics", self._headers)
            if status == 200:
                return of_text(body.decode(errors="replace"), time.time())
        except Malformed as error:
            raise Unavailable(f"{self.url}: {error}") from error
        raise Unavailable(f"{self.url}: HTTP {status}" + ": it wants another token (telemetry.token)" * (status == 401))

    async def trace(self, session: aiohttp.ClientSession, trace_id: str) -> bytes | None:
        """The JSON of a kept trace, None if this worker does not hold it; its own peers are not asked."""
        try:
            status, body = await self._get(session, f"/live/traces/{trace_id}?{BY_PEER}=1", self._headers)
        except Unavailable:
            return None
        return body if status == 200 else None

    async def explained(self, session: aiohttp.ClientSession, trace_id: str) -> dict[str, Any] | None:
        """What `tailrace explain` tells, None if it does not own the trace's partition. Raises Unavailable."""
        status, body = await self._get(session, f"/live/explain/{trace_id}", self._headers, EXPLAIN_SECONDS)
        return self._of_owner(status, body, "state")

    async def restored(
        self, session: aiohttp.ClientSession, trace_id: str, why: str, most: int, seconds: float
    ) -> dict[str, Any] | None:
        """A restore's outcome, None if it does not own the trace's partition. Raises Unavailable.

        It gives up when more than `most` bytes of the log would have to be read.
        """
        path, asked = f"/live/restore/{trace_id}", {"why": why, "max_read_bytes": most}
        status, body = await self._answer(session.post, path, self._headers, seconds, json=asked)
        return self._of_owner(status, body, "outcome")

    def _of_owner(self, status: int, body: bytes, key: str) -> dict[str, Any] | None:
        text = body.decode(errors="replace").strip()
        if status == 200:
            return self._told(body, key)
        if status == 404 and text == NOT_OWNER:
            return None
        off = "its live page is off; `telemetry.live: true`, or `tailrace worker --live`, turns it on"
        why = {401: "it wants another token (telemetry.token)", 404: off}
        raise Unavailable(f"{self.url}: HTTP {status}: {why.get(status, text)}")

    def _told(self, body: bytes, key: str) -> dict[str, Any]:
        try:
            found = json.loads(body)
        except ValueError:
            found = None
        if not isinstance(found, dict) or key not in found:
            raise Unavailable(f"{self.url}: this is no answer of a worker: {shortened(body.decode(errors='replace'))}")
        return found

    async def _get(
        self, session: aiohttp.ClientSession, path: str, headers: dict[str, str], seconds: float = ANSWER_SECONDS
    ) -> tuple[int, bytes]:
        return await self._answer(session.get, path, headers, seconds)

    async def _answer(
        self, send: Callable[..., Any], path: str, headers: dict[str, str], seconds: float, **request: Any
    ) -> tuple[int, bytes]:
        try:
            async with asyncio.timeout(seconds):
                # Redirects are not followed: the token is for this address.
                async with send(self.url + path, headers=headers, allow_redirects=False, **request) as answer:
                    body = await answer.content.read(LARGEST_ANSWER)
                    while not answer.content.at_eof() and len(body) < LARGEST_ANSWER:
                        body += await answer.content.read(LARGEST_ANSWER)
                    return answer.status, body
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
            raise Unavailable(f"{self.url}: {in_words(error)}") from error
