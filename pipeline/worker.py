"""A worker process: one Faust app whose agents are the roles that `--role` chose.

Faust gives agents, supervision and the web server; consuming, positions and commits are ours (docs/adr/0001).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any

import faust
from faust.app.base import BootStrategy

from pipeline import roles, serving, telemetry, zeros
from pipeline.config import Config, Telemetry
from pipeline.consume import Group
from pipeline.identity import config_hash, version
from pipeline.live.page import Page
from pipeline.live.watch import Watch
from schemas.errors import TailraceError
from schemas.ids import partition_of

log = logging.getLogger(__name__)


class _Boot(BootStrategy):  # type: ignore[misc]
    """Faust's own Kafka clients stay off: they read uncommitted and commit by themselves."""

    enable_kafka = False
    enable_web = False


class _App(faust.App):  # type: ignore[misc]
    """Faust's own Kafka clients stay off, and so do its tables: nothing is kept on disk."""

    def _create_directories(self) -> None:
        """Faust would make NAME-data in the working directory, which need not be writable."""


def application(name: str) -> Any:
    """A Faust app without Kafka clients of its own; agents on in-memory channels work in it."""
    app = _App(name, broker="kafka://", stream_wait_empty=False, web_enabled=False, autodiscover=False)
    app.BootStrategy = _Boot
    app.boot_strategy = _Boot(app)
    return app


class Worker:
    """Groups running in one Faust app, and the pages that show how they are."""

    def __init__(self, app: Any, services: Sequence[Group], settings: Telemetry) -> None:
        self.app, self.services = app, services
        self.server = serving.Server(settings, self.ready, self.unread)

    def ready(self) -> dict[str, bool]:
        """Each role, and whether it holds all of its partitions."""
        ready = dict.fromkeys((service.role for service in self.services), True)
        for service in self.services:
            ready[service.role] &= service.ready
        return ready

    async def unread(self) -> dict[str, int]:
        """Each role, and how many records wait for it."""
        unread = dict.fromkeys((service.role for service in self.services), 0)
        for service in self.services:
            unread[service.role] += await service.unread()
        return unread

    async def start(self) -> None:
        """Join the groups. Returns once everything runs; partitions come afterwards."""
        self.app.finalize()
        await self.app.start()
        self.app.flow_control.resume()  # without Faust's own consumer nothing else opens the channels
        # At once: a broker may hold a group's first join for seconds (group.initial.rebalance.delay.ms).
        await asyncio.gather(*(self.app.add_runtime_dependency(service) for service in self.services))

    async def stop(self) -> None:
        """Finish the batches under way, commit, leave the groups."""
        # Together: a group that rebalances answers late, and the others need not wait for it.
        await asyncio.gather(*(service.stop() for service in self.services), return_exceptions=True)
        await self.app.stop()
        await self.server.stop()

    async def wait(self) -> None:
        """Until a role fails; raises what it failed with."""
        ends = [asyncio.ensure_future(service.wait_until_stopped()) for service in self.services]
        try:
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for end in ends:
                end.cancel()
        for service in self.services:
            if service.crash_reason is not None:
                raise service.crash_reason


def explainer(
    config: Config, services: Sequence[Group]
) -> Callable[[bytes], Coroutine[None, None, dict[str, Any] | None]]:
    """Answers `tailrace explain` for traces whose partition these roles own, and None for others."""
    reading = asyncio.Lock()  # Kafka, beside the roles: one at a time

    async def explained(trace_id: bytes) -> dict[str, Any] | None:
        from pipeline.explain import document, explain

        index = partition_of(trace_id, config.kafka.partitions)
        if not any(service.role == "sample" and service.holds(index) for service in services):
            return None
        async with reading:
            return document(await explain(config, trace_id))

    return explained


@contextlib.asynccontextmanager
async def running(
    config: Config,
    names: Sequence[str],
    since: str | None = None,
    stopping: asyncio.Event | None = None,
    signals: Sequence[str] = (),
) -> AsyncIterator[Worker]:
    """A worker inside this loop; stopped in order on the way out.

    Its pages answer from the first moment on. With `stopping` it waits for Kafka and its topics first, until they are
    there or `stopping` is set (then no role runs). With `signals` ingest has a group for each of them.
    """
    app = application(f"{config.kafka.prefix}-worker")
    told = config.telemetry.metrics_level != "none"
    telemetry.tell(told)
    prefix, found = config.kafka.prefix, config_hash(config)
    telemetry.gauge("tailrace_config_info", 1, prefix=prefix, hash=found, version=version())
    zeros.begin(config, roles.expand(config, names))
    watch = Watch(config.telemetry.live.payloads) if told and config.telemetry.live.enabled else None
    worker = Worker(app, roles.build(app, config, names, since, watch, signals), config.telemetry)
    if watch is not None:
        worker.server.page = Page(config, watch, worker.server.refresh, explainer(config, worker.services))
    await worker.server.start()
    if watch is not None:
        log.info("live page", extra={"host": config.telemetry.host, "port": worker.server.port, "path": "/live"})
    try:
        if stopping is not None:
            await roles.wait_for_servers(config, names, stopping)
        if stopping is None or not stopping.is_set():
            await worker.start()
        yield worker
    finally:
        await worker.stop()


async def run(config: Config, names: Sequence[str], since: str | None = None, signals: Sequence[str] = ()) -> int:
    """Run until SIGTERM or SIGINT (exit code 0) or until a role fails (1)."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    async with running(config, names, since, stopping, signals) as worker:
        failed = asyncio.ensure_future(worker.wait())
        stopped = asyncio.ensure_future(stopping.wait())
        await asyncio.wait({failed, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if not stopping.is_set():
            try:
                failed.result()
            except TailraceError as error:
                log.error("stopped", extra={"error": str(error)})
            except Exception as error:
                log.error("stopped by a bug", exc_info=error)
            return 1
        failed.cancel()
        log.info("stopping: finishing batches and leaving the groups")
    return 0
