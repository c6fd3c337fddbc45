"""The worker's pages: /metrics, /healthz (the process lives), /readyz (every role holds its partitions)."""

from __future__ import annotations

import json
from collections.abc import Callable

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from pipeline import telemetry
from pipeline.config import Telemetry


class Server:
    """Serves on `telemetry.host`:`telemetry.port`; port 0 picks a free one, see `port`."""

    def __init__(self, settings: Telemetry, ready: Callable[[], dict[str, bool]]) -> None:
        self._settings, self._ready = settings, ready
        self._runner: web.AppRunner | None = None
        self.port = settings.port

    async def start(self) -> None:
        """Listen."""
        app = web.Application()
        app.router.add_get("/metrics", self._metrics)
        app.router.add_get("/healthz", self._health)
        app.router.add_get("/readyz", self._readiness)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._settings.host, self._settings.port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Stop listening."""
        if self._runner is not None:
            await self._runner.cleanup()

    async def _metrics(self, _: web.Request) -> web.Response:
        # Now, and for roles that have not come as far as their first partition: an alert needs a 0, not an absence.
        for role, ready in self._ready().items():
            telemetry.gauge("tailrace_ready", int(ready), role=role)
        return web.Response(body=generate_latest(telemetry.REGISTRY), headers={"Content-Type": CONTENT_TYPE_LATEST})

    async def _health(self, _: web.Request) -> web.Response:
        return web.json_response({"status": "alive"})

    async def _readiness(self, _: web.Request) -> web.Response:
        roles = self._ready()
        return web.Response(
            status=200 if all(roles.values()) else 503,
            text=json.dumps({"ready": all(roles.values()), "roles": roles}),
            content_type="application/json",
        )
