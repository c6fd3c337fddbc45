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
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    InvalidSessionTimeoutError,
    KafkaError,
    TopicAuthorizationFailedError,
)
from faust.app.base import BootStrategy

from pipeline import roles, telemetry
from pipeline.config import Config
from pipeline.configuration.reload import File, Reload
from pipeline.kafka.consume import Group
from pipeline.kafka.pace import Turns
from pipeline.kafka.topics import places
from pipeline.operating.decision_log import side_by_side
from pipeline.operating.restore import Answer
from pipeline.sample import PartitionPair
from pipeline.started import Started
from pipeline.watching import serving, zeros
from pipeline.watching.identity import config_hash, version
from pipeline.watching.settings import Telemetry
from pipeline.watching.watchdog import guard_loop
from processors.sampling.restore import Outcome
from schemas.errors import ConfigError, Permanent, TailraceError, Unavailable
from schemas.ids import trace_key

log = logging.getLogger(__name__)


class _Boot(BootStrategy):  # type: ignore[misc]
    """Faust's own Kafka clients stay off: they read uncommitted and commit by themselves."""

    enable_kafka = False
    enable_web = False


class _App(faust.App):  # type: ignore[misc]
    """Faust's own Kafka clients stay off, and so do its tables: nothing is kept on disk."""

    logger = logging.getLogger("faust.app")  # of "[^_App]: Starting...": the worker says itself what it does

    def _create_directories(self) -> None:
        """Faust would make NAME-data in the working directory, which need not be writable."""


def application(name: str) -> Any:
    """A Faust app without Kafka clients of its own; agents on in-memory channels work in it."""
    app = _App(name, broker="kafka://", stream_wait_empty=False, web_enabled=False, autodiscover=False)
    app.turns = Turns()  # one loop, one owner of it at a time
    app.BootStrategy = _Boot
    app.boot_strategy = _Boot(app)
    return app


class Worker:
    """Groups running in one Faust app, and the pages that show how they are."""

    def __init__(self, app: Any, services: Sequence[Group], settings: Telemetry) -> None:
        self.app, self.services = app, services
        self.reload: Reload
        self.following: asyncio.Task[None] | None = None
        self.server = serving.Server(settings, self.ready, self.unread)

    def ready(self) -> dict[str, bool]:
        """Each role, and whether all of its groups are ready."""
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
        following = [self.following] if self.following is not None else []
        try:
            await asyncio.wait([*ends, *following], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for end in ends:
                end.cancel()
        for task in following:
            if task.done():
                task.result()
        for service in self.services:
            if service.crash_reason is not None:
                raise service.crash_reason


def explainer(
    current: Callable[[], Config], services: Sequence[Group]
) -> Callable[[bytes], Coroutine[None, None, dict[str, Any] | None]]:
    """Answers `tailrace explain` for traces whose partition these roles own, and None for others.

    Where any partition may have the trace (`regroup: never`), the owner of one answers for all of them. One at
    a time reads Kafka beside the roles.
    """
    reading = asyncio.Lock()

    async def explained(trace_id: bytes) -> dict[str, Any] | None:
        from pipeline.operating.explain import document, explain

        config = current()
        if not _owned(services, places(config, trace_id)):
            return None
        async with reading:
            return document(await explain(config, trace_id), config.telemetry.live.payloads)

    return explained


def restorer(
    current: Callable[[], Config], services: Sequence[Group]
) -> Callable[[bytes, str, float], Coroutine[None, None, dict[str, Any] | None]]:
    """Answers `tailrace restore` for traces whose partition these roles own, and None for others.

    Where any partition may have the trace (`regroup: never`), the logs of decisions of all say which do, read as for
    `tailrace explain`: those that are owned here restore it, and `left` names the others. One at a time reads them,
    however long that takes: explanations, which have a limit of time, do not wait for it.
    """
    reading = asyncio.Lock()

    async def restored(trace_id: bytes, why: str, most: float) -> dict[str, Any] | None:
        config, key = current(), trace_key(trace_id)
        candidates = places(config, trace_id)
        owned, has = _owned(services, candidates), list(candidates)
        if owned and len(candidates) > 1:
            async with reading, side_by_side(config, candidates, key) as logs:
                has = [each.index for each in logs if each.found is not None]
            owned = _owned(services, candidates)  # partitions may have moved meanwhile
        found: list[Answer] = []
        if owned and not has:
            waits = [index for index, lease in owned.items() if lease.restores.waits(key)]
            found = [Answer(Outcome.UNDECIDED if waits else Outcome.UNKNOWN, (waits or list(owned))[0])]
        else:
            asked = [owned[index].restores.ask(key, why, most) for index in has if index in owned]
            found = await asyncio.gather(*asked)
        if not found:
            return None
        first, *others = (answer.as_plain() for answer in found)
        return first | {"elsewhere": others, "left": [index for index in has if index not in owned]}

    return restored


def _owned(services: Sequence[Group], partitions: Sequence[int]) -> dict[int, PartitionPair]:
    """Those of the partitions that `sample` has the lease of."""
    sampling = [service for service in services if service.role == "sample"]
    found = {index: each.lease(index) for index in partitions for each in sampling}
    return {index: lease for index, lease in found.items() if isinstance(lease, PartitionPair)}


@contextlib.asynccontextmanager
async def running(
    config: Config,
    names: Sequence[str],
    since: str | None = None,
    stopping: asyncio.Event | None = None,
    signals: Sequence[str] = (),
    file: File | None = None,
    accept_loss: bool = False,
) -> AsyncIterator[Worker]:
    """A worker inside this loop; stopped in order on the way out.

    Its pages answer from the first moment on. With `stopping` it waits for Kafka and its topics first, until they are
    there or `stopping` is set: then no role runs, and groups that have not let it in yet are waited for no longer.
    With `file` policies and limits follow what is in it. `signals` as in `roles.build`, the others as in `Started`.
    """
    _tell_start(config, names, file)
    app = application(f"{config.kafka.prefix}-worker")
    told = config.telemetry.metrics_level != "none"
    telemetry.tell(told)
    zeros.begin(config, roles.expand(config, names))
    watch = None
    if told and config.telemetry.live.enabled:
        from pipeline.live.watch import Watch

        watch = Watch(config.telemetry.live.payloads)
    started = Started(since, accept_loss, watch)
    worker = Worker(app, roles.build(app, config, names, started, signals), config.telemetry)
    if watch is not None:
        from pipeline.live.page import Page

        explained = explainer(lambda: worker.reload.config, worker.services)
        restored = restorer(lambda: worker.reload.config, worker.services)
        worker.server.page = Page(config, watch, worker.server.refresh, explained, restored)

    applied = config

    async def apply(new: Config) -> None:
        nonlocal applied
        old, applied = applied, new
        zeros.begin(new, roles.expand(new, names))
        if worker.server.page is not None:
            worker.server.page.follow(new)
        made = [(service, roles.leases(old, new, service.role, started)) for service in worker.services]
        renewing = [
            service.renew(each, roles.patience(new, service.role)) for service, each in made if each is not None
        ]
        await asyncio.gather(*renewing)

    worker.reload = Reload(config, apply, file)
    worker.server.configuration = worker.reload.state
    await worker.server.start()
    if watch is not None:
        log.info("live page", extra={"host": config.telemetry.host, "port": worker.server.port, "path": "/live"})
    try:
        if stopping is not None:
            await unless_stopped(stopping, roles.wait_for_servers(config, names))
        if stopping is None or not stopping.is_set():
            await _join(worker, config, names, stopping or asyncio.Event())
        if file is not None:
            worker.following = asyncio.create_task(worker.reload.run(), name="configuration file")
        yield worker
    finally:
        if worker.following is not None:
            worker.following.cancel()
        await worker.stop()


def _tell_start(config: Config, names: Sequence[str], file: File | None) -> None:
    """What /readyz and `tailrace_config_info` say as well, where whoever reads the log looks first."""
    what = {"version": version(), "hash": config_hash(config), "roles": roles.expand(config, names)}
    log.info("a worker starts", extra=what | ({} if file is None else {"file": str(file.path)}))


async def _join(worker: Worker, config: Config, names: Sequence[str], stopping: asyncio.Event) -> None:
    """Start the worker, unless `stopping` is set before its groups have let it in.

    Raises ConfigError, Permanent or Unavailable if they do not.
    """
    try:
        await unless_stopped(stopping, worker.start())
    except InvalidSessionTimeoutError:
        raise ConfigError(
            f"kafka.session_timeout: the brokers do not take {config.kafka.session_timeout:g}s; it must lie between "
            "their group.min.session.timeout.ms and group.max.session.timeout.ms"
        ) from None
    except (GroupAuthorizationFailedError, TopicAuthorizationFailedError) as error:
        hint = f"`tailrace acls FILE --role {','.join(names)}` prints what its user must be allowed to do"
        raise Permanent(f"the groups cannot be joined: {error}; {hint}") from error
    except KafkaError as error:
        raise Unavailable(f"the groups cannot be joined: {error}") from error


async def unless_stopped(stopping: asyncio.Event, work: Coroutine[Any, Any, object]) -> None:
    """Do this, or begin to and give it up when `stopping` is set: brokers may not answer for long."""
    doing, stopped = asyncio.ensure_future(work), asyncio.ensure_future(stopping.wait())
    try:
        await asyncio.wait({doing, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            doing.result()
    finally:
        for task in (doing, stopped):
            task.cancel()
        await asyncio.wait({doing, stopped})


async def run(
    config: Config,
    names: Sequence[str],
    since: str | None = None,
    signals: Sequence[str] = (),
    file: File | None = None,
    accept_loss: bool = False,
) -> int:
    """Run until SIGTERM or SIGINT (exit code 0) or until a role fails (1). Raises ConfigError."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    guard = asyncio.ensure_future(guard_loop(config.watchdog.timeout))
    try:
        async with running(config, names, since, stopping, signals, file, accept_loss) as worker:
            loop.add_signal_handler(signal.SIGHUP, worker.reload.ask)
            return await _ended(worker, stopping)
    except (Permanent, Unavailable) as error:
        log.error("stopped", extra={"error": str(error)})
        return 1
    finally:
        guard.cancel()


async def _ended(worker: Worker, stopping: asyncio.Event) -> int:
    """Wait for a signal or a failure, and say which."""
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
