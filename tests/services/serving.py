"""A web server in the process of a test."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web

from tests.services.process import HOST

MOST_BYTES = 1 << 30  # of a request


@asynccontextmanager
async def serving(
    answer: Callable[[web.Request], Awaitable[web.StreamResponse]], tls: ssl.SSLContext | None = None, **settings: Any
) -> AsyncIterator[str]:
    """The URL of a server that answers every path; `settings` are those of aiohttp's AppRunner."""
    app = web.Application(client_max_size=MOST_BYTES)
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0, **settings)
    await runner.setup()
    try:
        await web.TCPSite(runner, HOST, 0, ssl_context=tls).start()
        yield f"http{'s' if tls else ''}://{HOST}:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()
