"""A pipeline whose workers, broker and destinations can be disturbed, one fault at a time each."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from tests.end_to_end.harness import Destinations, Pipeline, Worker, running
from tests.end_to_end.traffic import Feed
from tests.faults.proxy import Proxy, spans_in
from tests.faults.schedule import DESTINATIONS, Schedule
from tests.services import Kafka, ServerFailed
from tests.services.waiting import POLL_SECONDS

SINK_TIMEOUT = 3.0
BATCH = {"max_items": 400, "max_age": "500ms"}
RETRY = {"initial_interval": "200ms", "max_interval": "2s"}
# What Kafka 4.1 says when, after a kill, a load of a group coordinator was declared finished by the one before it (M21)
# and the coordinator cannot go back: from then on it answers nobody, until the broker is started again.
STUCK = b"No in-memory snapshot for epoch"
IN_TRANSIT = 2.0  # seconds that a request may be old when it is written down, on a busy machine


@dataclass(frozen=True, slots=True)
class Disturbance:
    """A sink that its group took for dead, from `begin` on, for this cause; it woke at `end`. Times are monotonic."""

    begin: float
    cause: str
    end: float = inf

    def explains(self, first: float, again: float) -> bool:
        """Whether a span that was sent then may have been sent again then.

        What it could not commit any more, its successor sends; what it had half-way in a socket goes when it wakes.
        """
        if first <= self.begin + IN_TRANSIT:
            return again >= self.begin
        return self.end <= again <= self.end + IN_TRANSIT


@dataclass(slots=True)
class Slot:
    """One worker of the layout, started again whenever it ends. It reads what its clock is ahead from `clock`."""

    roles: str
    clock: Path
    worker: Worker | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    def delivers(self, sink: str) -> bool:
        """Whether it has this sink's role."""
        return bool({"all", "sinks", f"sink.{sink}"} & set(self.roles.split(",")))


@dataclass(slots=True)
class Stage:
    """What faults act on."""

    kafka: Kafka
    pipeline: Pipeline
    feed: Feed
    proxies: Mapping[str, Proxy]
    slots: list[Slot]
    faketime: Path | None
    broker: asyncio.Lock = field(default_factory=asyncio.Lock)
    disturbances: list[Disturbance] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    unstuck: int = 0  # how often the broker was started again because of that
    _heard: int = 0  # bytes of the broker's log

    @asynccontextmanager
    async def taking(self, number: int) -> AsyncIterator[tuple[Slot, Worker]]:
        """A worker that runs and that no other fault has: this one, or the next that is free."""
        around = self.slots[number:] + self.slots[:number]
        slot = next((slot for slot in around if not slot.lock.locked()), around[0])
        async with slot.lock:
            assert slot.worker is not None
            yield slot, slot.worker

    def disturbed(self, cause: str, begin: float, end: float = inf, slot: Slot | None = None) -> None:
        """From then on somebody else may send what a sink could not commit; with a slot, if it sends to Jaeger."""
        if slot is None or slot.delivers("jaeger"):
            self.disturbances.append(Disturbance(begin, cause, end))

    async def flows(self) -> bool:
        """Whether every destination has taken something: before that a fault would meet nothing."""
        return all(any(passage.accepted for passage in proxy.passages) for proxy in self.proxies.values())

    async def start(self, slot: Slot) -> None:
        """The slot's worker, ready; one that ends by itself meanwhile is started again."""
        while True:
            try:
                if slot.worker is None:
                    slot.worker = await self.pipeline.start(slot.roles, **self._environment(slot))
                else:
                    await asyncio.to_thread(slot.worker.start)
                return
            except ServerFailed as error:
                self.ended.append(str(error))
                assert len(self.ended) < 20, self.ended

    def _environment(self, slot: Slot) -> dict[str, str]:
        """With libfaketime a worker's wall clock is what its file says; its monotonic one goes on as ever."""
        if self.faketime is None:
            return {}
        return {
            "LD_PRELOAD": str(self.faketime),
            "FAKETIME_TIMESTAMP_FILE": str(slot.clock),
            "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }

    def slot(self, roles: str, number: int) -> Slot:
        """One more."""
        clock = self.pipeline.folder / f"{self.pipeline.name}-clock-{number}"
        clock.write_text("+0")
        return Slot(roles, clock)

    async def supervise(self) -> None:
        """Start again what ended by itself, as Kubernetes would, and a broker that is stuck. `ended` has last words."""
        self._heard = self.kafka.log.stat().st_size
        while True:
            await asyncio.sleep(POLL_SECONDS)
            await self._unstick()
            for slot in self.slots:
                if not slot.lock.locked() and slot.worker is not None and not slot.worker.is_running:
                    async with slot.lock:
                        words = slot.worker.log.read_text(errors="replace").splitlines()[-3:]
                        words.append(f"(the logs, if they are kept: {self.note_logs().name})")
                        self.ended.append(f"{slot.roles} ended with {slot.worker.wait()}: " + "\n".join(words))
                        self.disturbed("ended by itself", time.monotonic(), slot=slot)
                        await self.start(slot)

    async def _unstick(self) -> None:
        if self.broker.locked():
            return
        with self.kafka.log.open("rb") as log:
            log.seek(self._heard)
            said = log.read()
        self._heard += len(said)
        if STUCK in said:
            self.unstuck += 1
            await self.restart_broker()

    async def restart_broker(self, after: float = 0) -> None:
        """SIGKILL of the broker; it is started again `after` so many seconds."""
        async with self.broker:
            self.disturbed("broker away", time.monotonic())
            self.kafka.kill()
            await asyncio.sleep(after)
            await asyncio.to_thread(self.kafka.start)

    async def settled(self, deadline: float) -> None:
        """Wait until everything has arrived; anew if the broker had to be started again meanwhile."""
        while True:
            await self.admin_again()
            unstuck = self.unstuck
            try:
                return await self.pipeline.settled(deadline)
            except KafkaError:
                if unstuck == self.unstuck:
                    raise
            async with self.broker:
                pass

    def note_logs(self) -> Path:
        """Copy what all workers and the broker have said so far to a folder of its own in the pipeline's."""
        noted = self._logs / str(len(self.ended))
        noted.mkdir(parents=True, exist_ok=True)
        shutil.copy(self.kafka.log, noted / "kafka.log")
        for number, slot in enumerate(self.slots):
            if slot.worker is not None:
                shutil.copy(slot.worker.log, noted / f"{number}-{slot.roles}.log")
        return noted

    def keep_logs(self) -> Path:
        """What was noted, and what has been said by now, in a folder that stays."""
        self.note_logs()
        kept = Path(tempfile.mkdtemp(prefix=f"tailrace-{self.pipeline.name}-logs-"))
        shutil.copytree(self._logs, kept, dirs_exist_ok=True)
        return kept

    @property
    def _logs(self) -> Path:
        return self.pipeline.folder / f"{self.pipeline.name}-logs"

    def timed_out(self) -> int:
        """How often workers gave a partition up because commits or takeovers were not answered in time."""
        logs = [slot.worker.log.read_text(errors="replace") for slot in self.slots if slot.worker is not None]
        lost = [line for text in logs for line in text.splitlines() if "lease lost, taking over again" in line]
        return sum("TimeoutError" in line for line in lost)

    async def forget(self) -> None:
        """End the workers and delete the topics: the next run has the broker to itself."""
        for slot in self.slots:
            if slot.worker is not None:
                slot.worker.kill()
        topics = await self.pipeline.admin.list_topics()
        await self.pipeline.admin.delete_topics([t for t in topics if t.startswith(self.pipeline.name)])

    async def admin_again(self) -> None:
        """A client that has seen the broker die is not asked any more."""
        await self.pipeline.admin.close()
        self.pipeline.admin = AIOKafkaAdminClient(bootstrap_servers=self.kafka.bootstrap)
        await self.pipeline.admin.start()


@asynccontextmanager
async def staged(
    plan: Schedule,
    kafka: Kafka,
    destinations: Destinations,
    folder: Path,
    feed: Feed,
    faketime: Path | None = None,
    settings: Mapping[str, Any] | None = None,
) -> AsyncIterator[Stage]:
    """Proxies, topics and all workers of a schedule; everything ends with the block."""
    targets = {
        "jaeger": Proxy(destinations.jaeger.otlp_http, spans_in),
        "elasticsearch": Proxy(destinations.elasticsearch.url),
        "prometheus": Proxy(destinations.prometheus.url),
    }
    async with AsyncExitStack() as ends:
        for proxy in targets.values():
            await proxy.open()
            ends.push_async_callback(proxy.close)
        common = {"batch": BATCH, "timeout": SINK_TIMEOUT, "retry": RETRY}
        name = f"faults-{plan.seed}"
        sinks = {
            "jaeger": {"endpoint": targets["jaeger"].url, **common},
            "elasticsearch": {"endpoint": targets["elasticsearch"].url, "dataset": name.replace("-", "_"), **common},
            "prometheus": {"endpoint": f"{targets['prometheus'].url}/api/v1/write", **common},
        }
        made = Pipeline(kafka, folder, name, {"sinks": sinks, **(settings or {})}, destinations)
        pipeline = await ends.enter_async_context(running(made))
        assert set(targets) == set(DESTINATIONS)
        stage = Stage(kafka, pipeline, feed, targets, [], faketime)
        stage.slots += [stage.slot(roles, number) for number, roles in enumerate(plan.layout)]
        await asyncio.gather(*(stage.start(slot) for slot in stage.slots))
        yield stage
