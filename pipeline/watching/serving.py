"""The worker's pages: /metrics, /healthz (the process lives), /readyz (every role is ready), /live."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable, Mapping
from errno import EADDRINUSE, EADDRNOTAVAIL
from typing import TYPE_CHECKING

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from pipeline import telemetry
from pipeline.watching.access import Access
from pipeline.watching.settings import Telemetry
from schemas.errors import ConfigError, Unavailable

if TYPE_CHECKING:  # imported if it is served
    from pipeline.live.page import Page

MENDED = (EADDRINUSE, EADDRNOTAVAIL)  # by time, as while a predecessor still ends or an interface is not up yet
LAST_ANSWERS = 1.0  # seconds that requests under way get when the worker stops


class Server:
    """Serves on `telemetry.host`:`telemetry.port`; port 0 picks a free one, see `port`.

    `ready` and `unread` are asked by role whenever metrics are read. `page` is set before `start`, if there is one.
    `section` of the configuration is where the settings come from.
    """

    def __init__(
        self,
        settings: Telemetry,
        ready: Callable[[], dict[str, bool]],
        unread: Callable[[], Awaitable[Mapping[str, int]]] | None = None,
        section: str = "telemetry",
    ) -> None:
        self._section = section
        self._settings, self._ready, self._unread = settings, ready, unread
        self._access = Access(settings)
        self._runner: web.AppRunner | None = None
        self.port = settings.port
        self.page: Page | None = None
        self.configuration: Callable[[], Mapping[str, str | None]] | None = (
            None  # for /readyz: hash, and why it is stale
        )

    async def start(self) -> None:
        """Listen. Raises ConfigError where that is not possible, Unavailable if it may be later."""
        app = web.Application()
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/healthz", self._health)
        app.router.add_get("/readyz", self._readiness)
        if self.page is not None:
            app.router.add_routes(self.page.routes())
            await self.page.start()
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=LAST_ANSWERS)
        await self._runner.setup()
        host, port = self._settings.host, self._settings.port
        try:
            await web.TCPSite(self._runner, host, port).start()
        except OSError as error:
            await self.stop()
            why = os.strerror(error.errno) if error.errno and error.errno > 0 else error
            hint = f"; another process has it, choose another {self._section}.port" if error.errno == EADDRINUSE else ""
            text = f"{self._section}.host, {self._section}.port: {host}:{port}: {why}{hint}"
            raise (Unavailable if error.errno in MENDED else ConfigError)(text) from error
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Stop listening."""
        if self.page is not None:
            await self.page.stop()
        if self._runner is not None:
            await self._runner.cleanup()

    async def refresh(self) -> None:
        """Set the gauges that are worked out when somebody asks."""
        # Also for roles that have not come as far as their first partition: an alert needs a 0, not an absence.
        for role, ready in self._ready().items():
            telemetry.gauge("tailrace_ready", int(ready), role=role)
        if self._unread is not None:
            for role, records in (await self._unread()).items():
                telemetry.gauge("tailrace_unread_records", records, role=role)

    async def _metrics(self, request: web.Request) -> web.Response:
        if not self._settings.public_metrics and (refusal := self._access.refusal(request)) is not None:
            return refusal
        await self.refresh()
        return web.Response(body=generate_latest(telemetry.REGISTRY), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _health(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "alive"})

    async def _readiness(self, request: web.Request) -> web.Response:
        """A word for everybody, since probes have no token; which role and why for those who are known."""
        roles = self._ready()
        ready = all(roles.values())
        told: dict[str, object] = {"ready": ready}
        if self._access.refusal(request) is None:
            told["roles"] = roles
            if self.configuration is not None:
                told["config"] = self.configuration()
        return web.json_response(told, status=200 if ready else 503)
