"""A worker's server with its live page, without roles: what roles would feed, the test does."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from pipeline.config import Config
from pipeline.live.page import Page
from pipeline.live.watch import Watch
from pipeline.watching.serving import Server
from tests.pipeline.configs import MINIMAL


class LivePage:
    """Where it is, and its watch."""

    def __init__(self, server: Server, watch: Watch) -> None:
        self.server, self.watch = server, watch
        self.url = f"http://127.0.0.1:{server.port}"


Explain = Callable[[bytes], Awaitable[dict[str, Any] | None]]
Restore = Callable[[bytes, str, float], Awaitable[dict[str, Any] | None]]


@contextlib.asynccontextmanager
async def live_page(
    host: str = "127.0.0.1",
    port: int = 0,
    token: str | None = None,
    public_metrics: bool = False,
    explain: Explain | None = None,
    restore: Restore | None = None,
    **live: Any,
) -> AsyncIterator[LivePage]:
    access = {"host": host, "port": port, "token": token, "public_metrics": public_metrics}
    config = Config.model_validate({**MINIMAL, "telemetry": {**access, "live": {"enabled": True, **live}}})
    watch = Watch(config.telemetry.live.payloads)

    async def unread() -> dict[str, int]:
        return {"ingest": 5}

    server = Server(config.telemetry, lambda: {"ingest": True}, unread)
    server.page = Page(config, watch, server.refresh, explain, restore)
    await server.start()
    try:
        yield LivePage(server, watch)
    finally:
        await server.stop()
