"""How long faults are felt: after SIGKILL of a sample worker, behind a frozen worker, beside a dead or slow sink."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

from pipeline.kafka.pace import TRANSACTION_TIMEOUT_MS
from schemas.envelope import Envelope
from tests.end_to_end.harness import RAW_PARTITIONS, SESSION_TIMEOUT, Destinations, Worker
from tests.end_to_end.traffic import Batches, Feed, Shop
from tests.faults.ledger import Ledger
from tests.faults.schedule import DESTINATIONS, Schedule, Shape
from tests.faults.stage import Slot, Stage, staged
from tests.services import Kafka, eventually

SPANS_PER_REQUEST = 5
KILLED_RATE = 5_000.0  # spans per second
PACED_RATE = 1_500.0
STEADY_SECONDS = 10.0
RATE_SECONDS = 20.0  # batches are half a second long: a window may have one more or less
CAUGHT_UP_SECONDS = 60.0
USUAL_ROOM = 1.0  # seconds that a trace may take longer than before the fault
LOAD_BYTES_PER_SECOND = 30e6
CAUGHT_UP_ROOM = 5.0
FROZEN_SECONDS = 20.0
CLEANUP_SECONDS = 2.0  # the broker's transaction.abort.timed.out.transaction.cleanup.interval.ms (tests/services)
REJOIN_SECONDS = SESSION_TIMEOUT / 4 + 1  # a heartbeat interval until the others hear of it, and the rebalance
LATE_ROOM = 2.0
LATE_MOST = max(SESSION_TIMEOUT + REJOIN_SECONDS, TRANSACTION_TIMEOUT_MS / 1000 + CLEANUP_SECONDS) + LATE_ROOM
OTHERS_LEAST = 0.9  # of their records per second without the fault

Say = Callable[[str], None]


def shown(value: float) -> str:
    """A figure for people: what is whole or large with all of its digits."""
    return f"{value:,.0f}" if value >= 1_000 or value == int(value) else f"{value:.4g}"


@dataclass(frozen=True, slots=True)
class Measured:
    """One figure beside its bar; `what` and `unit` are for the table."""

    what: str
    value: float
    bar: float
    unit: str
    at_least: bool = False

    @property
    def holds(self) -> bool:
        """Whether the bar is reached."""
        return self.value >= self.bar if self.at_least else self.value <= self.bar

    def as_json(self) -> dict[str, Any]:
        """For the file of results."""
        bar = f"{'≥' if self.at_least else '≤'} {shown(self.bar)} {self.unit}"
        return {"what": self.what, "value": round(self.value, 2), "unit": self.unit, "bar": bar, "holds": self.holds}


@asynccontextmanager
async def under_load(
    name: int, layout: tuple[str, ...], spans_per_second: float, kafka: Kafka, to: Destinations, folder: Path
) -> AsyncIterator[Stage]:
    """Workers of this layout with paced input that has been flowing for STEADY_SECONDS."""
    rate = spans_per_second / SPANS_PER_REQUEST
    plan = Schedule(name, Shape(0.0, rate, ()), layout, ())
    topics = (f"faults-{name}-otlp-spans", f"faults-{name}-otlp-logs")
    feed = Feed(kafka.bootstrap, Batches(*topics, RAW_PARTITIONS, random.Random(name)), Shop(name), rate, Ledger())
    async with staged(plan, kafka, to, folder, feed) as stage:
        feed.start()
        await asyncio.sleep(STEADY_SECONDS)
        yield stage
        await feed.finish()
        await stage.forget()


async def killed(kafka: Kafka, to: Destinations, folder: Path, say: Say) -> list[Measured]:
    """SIGKILL of one of two sample workers, and until its traces take no longer than before."""
    layout = ("ingest,aggregate", "sample", "sample", "sinks")
    async with under_load(900_001, layout, KILLED_RATE, kafka, to, folder) as stage:
        victim = _running(stage.slots[1])
        window = await asyncio.to_thread(victim.metric, "tailrace_window_bytes")
        bar = SESSION_TIMEOUT + window / LOAD_BYTES_PER_SECOND + CAUGHT_UP_ROOM
        at = time.time()
        victim.kill()
        await asyncio.sleep(bar + STEADY_SECONDS)
        found = await _delivered(stage)
        usual = max(d.late for d in found if at - STEADY_SECONDS / 2 < d.at < at)
        seconds = max(d.at for d in found if d.late > usual + USUAL_ROOM and d.at > at) - at
        say(f"caught up after {seconds:.1f} s, window {window / 1e6:.1f} MB")
        told = f"{KILLED_RATE:,.0f} spans/s, window {window / 1e6:.1f} MB"
        what = f"SIGKILL of a sample worker at {told}: caught up after"
        return [Measured(what, seconds, bar, "s")]


async def frozen(kafka: Kafka, to: Destinations, folder: Path, say: Say) -> list[Measured]:
    """SIGSTOP of each worker in turn: how much later than before the others' partitions are decided."""
    layout = ("ingest", "ingest", "sample", "sample", "aggregate", "sinks")
    measured = []
    async with under_load(900_002, layout, PACED_RATE, kafka, to, folder) as stage:
        for number in (0, 2, 4, 5):
            slot = stage.slots[number]
            worker, roles = _running(slot), slot.roles
            own = {p.partition for p in worker.assigned("sample")} if roles == "sample" else set()
            begin = time.time()
            worker.pause()
            await asyncio.sleep(FROZEN_SECONDS)
            worker.resume()
            await eventually(lambda worker=worker: asyncio.to_thread(worker.is_ready), CAUGHT_UP_SECONDS, "ready")  # type: ignore[misc]
            await asyncio.sleep(STEADY_SECONDS)
            others = [d for d in await _delivered(stage) if d.partition not in own]
            usual = median(d.late for d in others if begin - STEADY_SECONDS < d.at < begin)
            worst = max(d.late for d in others if begin < d.at)
            rise = worst - usual
            say(f"{roles} frozen: {usual:.1f} s before, at most {worst:.1f} s")
            what = f"SIGSTOP of {roles} for {FROZEN_SECONDS:.0f} s: other partitions are decided later by at most"
            measured.append(Measured(what, rise, LATE_MOST, "s"))
    return measured


@dataclass(frozen=True, slots=True)
class Delivered:
    """A kept trace: when it began, when the log had it (seconds since the epoch), and where."""

    began: float
    at: float
    partition: int

    @property
    def late(self) -> float:
        """Seconds between the two."""
        return self.at - self.began


async def _delivered(stage: Stage) -> list[Delivered]:
    """Every kept trace up to now."""
    traces = stage.feed.truth.traces.items()
    began = {int(i[16:], 16): min(s.start_ns for s in t.spans.values()) / 1e9 for i, t in traces if t.spans}
    return [
        Delivered(began[key], record.timestamp / 1000, record.partition)
        for record in await stage.pipeline.records([stage.pipeline.topics.kept_spans])
        for key in set(Envelope.decode(record.value).keys)
        if key in began
    ]


async def beside(kafka: Kafka, to: Destinations, folder: Path, say: Say) -> list[Measured]:
    """Each sink dead, then slow: what the other two deliver, against what they deliver just before and afterwards."""
    measured = []
    async with under_load(900_003, ("ingest,sample,aggregate", "sinks"), PACED_RATE, kafka, to, folder) as stage:
        worker = _running(stage.slots[1])
        before = await _rates(worker)
        for mode in ("refuse", "time out", "slow"):
            for hindered in DESTINATIONS:
                await stage.proxies[hindered].behave(mode)
                rates = await _rates(worker)
                await stage.proxies[hindered].behave("pass")
                await asyncio.sleep(STEADY_SECONDS / 2)
                after = await _rates(worker)
                usual = {name: (before[name] + after[name]) / 2 for name in DESTINATIONS}
                before = after
                others = {name: rates[name] / usual[name] for name in DESTINATIONS if name != hindered}
                say(f"{hindered}: {mode}: {others}")
                what = f"{hindered} {mode}: records/s of the other two, the smaller ratio"
                measured.append(Measured(what, min(others.values()), OTHERS_LEAST, "×", at_least=True))
    return measured


async def _rates(worker: Worker) -> Mapping[str, float]:
    async def accepted(name: str) -> float:
        return await asyncio.to_thread(worker.metric, "tailrace_sink_items_total", sink=name, outcome="accepted")

    before = {name: await accepted(name) for name in DESTINATIONS}
    began = time.monotonic()
    await asyncio.sleep(RATE_SECONDS)
    return {name: (await accepted(name) - before[name]) / (time.monotonic() - began) for name in DESTINATIONS}


def _running(slot: Slot) -> Worker:
    assert slot.worker is not None
    return slot.worker


MEASUREMENTS = {"killed": killed, "frozen": frozen, "beside": beside}
