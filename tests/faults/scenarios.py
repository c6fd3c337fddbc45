"""What a seed does not draw: long outages, a cold start on a backlog, overload. Same ledger, same check.

`make faults ARGS="--scenario outage"`.
"""

from __future__ import annotations

import asyncio
import gc
import random
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice, takewhile
from pathlib import Path
from typing import Any

from pipeline.kafka.pace import TRANSACTION_TIMEOUT_MS
from tests.end_to_end.harness import DECISION_WAIT, RAW_PARTITIONS, Destinations
from tests.end_to_end.traffic import BATCH_SECONDS, SPREAD_SECONDS, Batches, Feed, Message, Shop, producer, send
from tests.end_to_end.truth import Log, Span, Truth
from tests.faults import crowd
from tests.faults.checker import Row
from tests.faults.contest import contest
from tests.faults.huge_trace import beside_a_huge_trace
from tests.faults.ledger import Ledger
from tests.faults.measure import Measured, Say
from tests.faults.overtaken import overtaken
from tests.faults.run import Report, judged, made_of, run
from tests.faults.schedule import DESTINATIONS, Fault, Schedule, Shape
from tests.faults.stage import Stage, staged
from tests.faults.watch import Watch
from tests.services import Kafka
from tests.services.waiting import POLL_SECONDS

OUTAGE_SECONDS = 120.0
OUTAGE_EVERY = 30.0  # from the beginning of one outage to that of the next
OUTAGE_RATE = 150.0  # requests per second
TIMED_OUT_SECONDS = TRANSACTION_TIMEOUT_MS / 1000 + 4.0  # a commit gives up meanwhile, and a session ends
TIMED_OUT_TIMES = 3
WAITING_SPANS = 3_010_000  # what is drawn is a little less or more: three million at least
WAITING_RATE = 5_000.0  # spans per second when they were made: ten minutes of them
LAYOUT = ("ingest", "sample", "aggregate,sinks")
CALIBRATION_SPANS = 100_000
CALIBRATION_SECONDS = 20.0
SLICE = 0.2  # seconds, of which overloaded workers run SHARE: three times what they can do is more than a sender makes
SHARE = 0.05
OVERLOAD_SECONDS = 120.0
OVERLOAD = 3.0  # times what the pipeline passes
OVERLOAD_ROOM = 1.1  # sent above that, since a sender may be late
PASSED_SECONDS = 1500.0
SETTLED_SECONDS = 600.0
SAY_SECONDS = 10.0
LATE_SECONDS = DECISION_WAIT - SPREAD_SECONDS - BATCH_SECONDS  # after which a message may come after a decision
CHUNK = 200  # messages sent at once


@dataclass(slots=True)
class Outcome:
    """What a scenario showed: rows of the check by whom they are about, figures beside their bars, facts."""

    rows: dict[str, Row]
    measured: list[Measured] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        """Whether Tailrace has a row of zeros and every bar is reached."""
        return self.rows["Tailrace"].clean and all(each.holds for each in self.measured)

    def as_json(self) -> dict[str, Any]:
        """For the file of results."""
        rows = {
            whose: {"counts": dict(row.counts), "allowed": {column: dict(n) for column, n in row.allowed.items()}}
            for whose, row in self.rows.items()
        }
        return {"rows": rows, "measured": [each.as_json() for each in self.measured], "facts": self.facts}


async def outage(kafka: Kafka, to: Destinations, folder: Path, say: Say) -> Outcome:
    """Each sink is down for two minutes, partly at the same time as the next one."""
    modes = ("refuse", "time out", "503")
    faults = tuple(
        Fault(5.0 + OUTAGE_EVERY * number, mode, OUTAGE_SECONDS, number) for number, mode in enumerate(modes)
    )
    seconds = faults[-1].at + OUTAGE_SECONDS + 10.0
    plan = Schedule(910_001, Shape(seconds, OUTAGE_RATE, ()), ("ingest,sample,aggregate", "sinks"), faults)
    found = await run(plan, kafka, to, folder, say=say)
    ended = _ended(found)
    caught = Measured("the last sink is back: everything has arrived after", found.figures["settled_seconds"], 60, "s")
    what = ", ".join(f"{DESTINATIONS[fault.target]}: {fault.kind}" for fault in faults)
    facts = {"told": f"Each sink down for {OUTAGE_SECONDS:.0f} s ({what})"} | _some(found.figures)
    return Outcome({"Tailrace": found.row}, [ended, caught], facts)


async def time_outs(kafka: Kafka, to: Destinations, folder: Path, say: Say) -> Outcome:
    """The broker stands for longer than commits are waited for, again and again, while transactions are under way."""
    every = TIMED_OUT_SECONDS + OUTAGE_EVERY / 2
    faults = tuple(
        Fault(5.0 + every * number, "freeze broker", TIMED_OUT_SECONDS, 0) for number in range(TIMED_OUT_TIMES)
    )
    seconds = faults[-1].at + every
    plan = Schedule(940_001, Shape(seconds, OUTAGE_RATE, ()), ("ingest,sample", "sample,aggregate", "sinks"), faults)
    found = await run(plan, kafka, to, folder, say=say)
    timed_out = found.figures["timed_out"]
    gave_up = Measured("commits and takeovers that timed out", timed_out, TIMED_OUT_TIMES, "", at_least=True)
    told = f"The broker stands still {TIMED_OUT_TIMES} times, {TIMED_OUT_SECONDS:.0f} s each"
    return Outcome({"Tailrace": found.row}, [gave_up, _ended(found)], {"told": told} | _some(found.figures))


async def cold_start(kafka: Kafka, to: Destinations, folder: Path, say: Say) -> Outcome:
    """Spans, and their logs, wait before the first worker starts."""
    async with _backlog(920_001, WAITING_SPANS, kafka, to, folder, say) as (stage, ledger):
        began = time.monotonic()
        await _start(stage)
        async with Watch(stage).watching() as watch:
            await _passed(watch, ledger, say)
            passed = time.monotonic() - began
            await stage.pipeline.settled(SETTLED_SECONDS)
            arrived = time.monotonic() - began
            row = await judged(stage, ledger)
            figures = watch.measured()
    made = ledger.made.total()
    told = f"{made:,} spans waiting: all passed after {passed:.0f} s ({made / passed:,.0f} spans/s), "
    facts = {"told": told + f"all arrived after {arrived:.0f} s"} | made_of(ledger)
    return Outcome({"Tailrace": row}, figures, facts)


async def overload(kafka: Kafka, to: Destinations, folder: Path, say: Say) -> Outcome:
    """Slow workers: what they pass is measured, then three times as much comes for two minutes."""
    async with _backlog(930_001, 0, kafka, to, folder, say) as (stage, ledger):
        await _start(stage)
        watch = Watch(stage)
        with _slowed(stage):
            async with watch.watching():
                more = await _for_seconds(stage, 930_003, CALIBRATION_SPANS / CALIBRATION_SECONDS, CALIBRATION_SECONDS)
                began = time.monotonic()
                await _send_live(kafka, more, ledger)
                await _passed(watch, ledger, say)
                capacity = ledger.made.total() / (time.monotonic() - began - DECISION_WAIT)
                say(f"it passes {capacity:,.0f} spans/s")
                await asyncio.sleep(10.0)  # what waits for commits and sessions settles
                rate = OVERLOAD * OVERLOAD_ROOM * capacity
                more = await _for_seconds(stage, 930_002, rate, OVERLOAD_SECONDS)
                say(f"{sum(len(message.facts) for message in more):,} spans and logs are made")
                before, began = watch.takeovers(), time.monotonic()
                had = ledger.made.total()
                await _send_live(kafka, more, ledger)
                seconds = time.monotonic() - began
                came = (ledger.made.total() - had) / seconds
                del more
                say(f"{came:,.0f} spans/s came for {seconds:.0f} s")
                ended = time.monotonic()
                await _passed(watch, ledger, say)
                caught_up = time.monotonic() - ended
                moved = watch.takeovers() - before
                if moved:  # the logs say why
                    stage.pipeline.show_logs()
        async with watch.watching():
            await stage.pipeline.settled(SETTLED_SECONDS)
            row = await judged(stage, ledger)
            figures = [
                Measured(f"input for {seconds:.0f} s, of what passes", came / capacity, OVERLOAD, "×", at_least=True),
                Measured("partitions taken over since it began", moved, 0, ""),
                Measured("looks at a worker that was not ready", watch.not_ready, 0, ""),
                *watch.measured(),
                Measured("caught up after its end", caught_up, OVERLOAD * OVERLOAD_ROOM * OVERLOAD_SECONDS, "s"),
            ]
    told = f"{came:,.0f} spans/s for {seconds:.0f} s to a pipeline that passes {capacity:,.0f}; "
    facts = {"told": told + f"{len(ledger.late):,} traces were sent too late for their decisions"}
    return Outcome({"Tailrace": row}, figures, facts | made_of(ledger))


async def collector(kafka: Kafka, to: Destinations, folder: Path, say: Say) -> Outcome:
    """The Collector, tuned, and with `message_marking.after`, under the SIGKILLs that Tailrace gets."""
    rows, facts = await contest(kafka, folder, say)
    return Outcome(rows, facts=facts)


async def huge_trace(kafka: Kafka, to: Destinations, folder: Path, say: Say) -> Outcome:
    """A trace of a million spans beside usual traffic."""
    row, figures, facts = await beside_a_huge_trace(kafka, to, folder, say)
    return Outcome({"Tailrace": row}, figures, facts)


async def retention(kafka: Kafka, to: Destinations, folder: Path, say: Say) -> Outcome:
    """Retention overtakes the tail, on a broker of its own, which deletes soon: what warns of it, what is counted."""
    row, figures, facts = await overtaken(to, folder, say)
    return Outcome({"Tailrace": row}, figures, facts)


SCENARIOS = {
    "outage": outage,
    "time-outs": time_outs,
    "cold-start": cold_start,
    "overload": overload,
    "huge-trace": huge_trace,
    "retention": retention,
    "collector": collector,
}


# ---- input ----------------------------------------------------------------------------------------------------


class Backlog(Ledger):
    """Facts that lie in Kafka with the times at which they were made: nothing of them is late."""

    def add(self, *facts: Span | Log) -> None:
        """Write facts down."""
        Truth.add(self, *facts)


@asynccontextmanager
async def _backlog(
    name: int, spans: int, kafka: Kafka, to: Destinations, folder: Path, say: Say
) -> AsyncIterator[tuple[Stage, Ledger]]:
    """A pipeline without workers, and so many spans in its raw topics."""
    ledger = Backlog()
    plan = Schedule(name, Shape(0.0, 0.0, ()), (), ())
    topics = (f"faults-{name}-otlp-spans", f"faults-{name}-otlp-logs")
    feed = Feed(kafka.bootstrap, Batches(*topics, RAW_PARTITIONS, random.Random(name)), Shop(name), 1.0, ledger)
    gc.disable()  # millions of objects that stay: each full collection would look at all of them
    try:
        async with staged(plan, kafka, to, folder, feed) as stage:
            begin = time.time() - spans / WAITING_RATE - 60.0
            async with producer(kafka.bootstrap) as client:
                waiting = crowd.messages(topics, name, WAITING_RATE, begin)
                end = begin + spans / WAITING_RATE
                rest = takewhile(lambda message: message.at < end, waiting)
                while chunk := list(islice(rest, CHUNK)):
                    await send(client, chunk, ledger)
            say(f"{ledger.made.total():,} spans wait")
            yield stage, ledger
            await stage.forget()
    finally:
        gc.enable()


async def _for_seconds(stage: Stage, seed: int, rate: float, seconds: float) -> list[Message]:
    """In a thread: proxies answer meanwhile."""
    topics = (stage.pipeline.spans_topic, stage.pipeline.logs_topic)
    begin = time.time()
    whole = takewhile(lambda message: message.at < begin + seconds, crowd.messages(topics, seed, rate, begin))
    return await asyncio.to_thread(list, whole)


def _write_down(messages: Sequence[Message], ledger: Ledger) -> None:
    for message in messages:
        ledger.add(*message.facts)


async def _send_live(kafka: Kafka, messages: Sequence[Message], ledger: Ledger) -> None:
    """Each message at its time, counted from now on. What a sender that is held up sends too late is known apart.

    All facts are written down beforehand, which leaves the sender its time; Kafka refuses nothing here.
    """
    await asyncio.to_thread(_write_down, messages, ledger)  # proxies answer meanwhile
    shift = time.time() - messages[0].at
    async with producer(kafka.bootstrap) as client:
        waiting = deque(messages)
        while waiting:
            due = []
            while waiting and waiting[0].at + shift <= time.time():
                due.append(waiting.popleft())
            shifted = [replace(message, at=message.at + shift, facts=()) for message in due]
            await send(client, shifted, ledger)
            now = time.time()
            for message, sent in zip(due, shifted, strict=True):
                if now - sent.at > LATE_SECONDS:
                    ledger.late.update(fact.trace_id for fact in message.facts if fact.trace_id)
            await asyncio.sleep(POLL_SECONDS)


def _ended(found: Report) -> Measured:
    return Measured("workers that ended by themselves", len(found.figures["ended_by_themselves"]), 0, "")


def _some(figures: Mapping[str, Any]) -> dict[str, Any]:
    return {name: figures[name] for name in ("spans", "traces", "kept", "logs")}


# ---- workers --------------------------------------------------------------------------------------------------


async def _start(stage: Stage) -> None:
    stage.slots += [stage.slot(roles, number) for number, roles in enumerate(LAYOUT)]
    await asyncio.gather(*(stage.start(slot) for slot in stage.slots))


@contextmanager
def _slowed(stage: Stage) -> Iterator[None]:
    """While the block runs its workers have SHARE of their time, a slice at a time, as on a slower machine.

    In a thread, since this one's loop has work of its own.
    """
    workers = [slot.worker for slot in stage.slots if slot.worker is not None]
    over = threading.Event()

    def slow() -> None:
        while not over.is_set():
            for worker in workers:
                worker.pause()
            time.sleep(SLICE * (1 - SHARE))
            for worker in workers:
                worker.resume()
            time.sleep(SLICE * SHARE)

    thread = threading.Thread(target=slow)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


async def _passed(watch: Watch, ledger: Ledger, say: Say) -> None:
    """Wait until sample has kept or dropped every span."""
    made, deadline = ledger.made.total(), time.monotonic() + PASSED_SECONDS
    said = time.monotonic()
    while watch.passed < made:
        await asyncio.sleep(POLL_SECONDS)
        assert time.monotonic() < deadline, f"{watch.passed:,.0f} of {made:,} spans after {PASSED_SECONDS:.0f} s"
        if time.monotonic() - said > SAY_SECONDS:
            said = time.monotonic()
            say(f"{watch.passed:,.0f} of {made:,} spans have passed")
