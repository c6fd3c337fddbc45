"""One run: a pipeline under input, faults from a seed, and what is found afterwards."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schemas.decision import DecisionRecord
from tests.end_to_end import holdings
from tests.end_to_end.harness import RAW_PARTITIONS, Destinations
from tests.end_to_end.traffic import Batches, Feed, Shop
from tests.faults.actions import ACTIONS
from tests.faults.checker import Found, Row, check
from tests.faults.ledger import Ledger
from tests.faults.schedule import CLOCK, Fault, Schedule
from tests.faults.stage import Stage, staged
from tests.services import Kafka, eventually

FLOWS_SECONDS = 60.0
SETTLED_SECONDS = 150.0
FAULTS_SECONDS = 120.0  # everything that was begun is undone by then
ENDED_CHARACTERS = 100  # that are kept of what a worker which ended by itself said


@dataclass(frozen=True, slots=True)
class Report:
    """What a run showed."""

    schedule: Schedule
    row: Row
    figures: dict[str, Any]

    def as_json(self) -> dict[str, Any]:
        """For the file of results."""
        return {
            "seed": self.schedule.seed,
            **self.figures,
            "counts": {column: count for column, count in self.row.counts.items()},
            "allowed": {column: dict(causes) for column, causes in self.row.allowed.items()},
        }


async def run(
    plan: Schedule,
    kafka: Kafka,
    destinations: Destinations,
    folder: Path,
    faketime: Path | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> Report:
    """Do it all. `faketime` is libfaketime; without it clocks do not step."""
    began = time.monotonic()
    shape, ledger = plan.shape, Ledger()
    name = f"faults-{plan.seed}"
    batches = Batches(f"{name}-otlp-spans", f"{name}-otlp-logs", RAW_PARTITIONS, random.Random(plan.seed))
    feed = Feed(kafka.bootstrap, batches, Shop(plan.seed), shape.rate, ledger)
    async with staged(plan, kafka, destinations, folder, feed, faketime) as stage:
        feed.start()
        supervisor = asyncio.create_task(stage.supervise())
        try:
            await eventually(stage.flows, FLOWS_SECONDS, "something has come to every destination")
            faults = [fault for fault in plan.faults if faketime is not None or fault.kind not in CLOCK]
            async with asyncio.timeout(shape.seconds + FAULTS_SECONDS), asyncio.TaskGroup() as tasks:
                tasks.create_task(asyncio.sleep(shape.seconds))
                for fault in faults:
                    tasks.create_task(happen(stage, fault, say))
            assert feed.flows
            await feed.finish()
            sent_at = time.monotonic()
            await stage.settled(SETTLED_SECONDS)
            settled = time.monotonic() - sent_at
            for words in stage.ended:
                say(words)
            row = await judged(stage, ledger)
            if not row.clean:
                say(f"the logs: {stage.keep_logs()}")
        except Exception:
            say(f"the logs: {stage.keep_logs()}")
            raise
        finally:
            supervisor.cancel()
            await asyncio.gather(supervisor, return_exceptions=True)
        figures = {
            **made_of(ledger),
            "late": len(ledger.late),
            "faults": dict(Counter(fault.kind for fault in faults)),
            "hindered_requests": sum(proxy.hindered for proxy in stage.proxies.values()),
            "ended_by_themselves": [words.partition("\n")[0][:ENDED_CHARACTERS] for words in stage.ended],
            "timed_out": stage.timed_out(),
            "broker_unstuck": stage.unstuck,
            "settled_seconds": round(settled, 1),
            "seconds": round(time.monotonic() - began, 1),
        }
        await stage.forget()
    return Report(plan, row, figures)


async def happen(stage: Stage, fault: Fault, say: Callable[[str], None]) -> None:
    """One fault, from its time on."""
    await asyncio.sleep(fault.at)
    say(f"{fault.kind} begins")
    await ACTIONS[fault.kind](stage, fault)
    say(f"{fault.kind} is over")


def made_of(ledger: Ledger) -> dict[str, int]:
    """How much input there was."""
    return {
        "spans": ledger.made.total(),
        "traces": len(ledger.traces),
        "kept": len(ledger.kept),
        "logs": sum(1 for _ in ledger.logs()),
    }


async def judged(stage: Stage, ledger: Ledger, found: Found | None = None) -> Row:
    """Look, unless that is done, and compare with the truth; dead letters are wrong too.

    What is wrong is followed by the workers' logs.
    """
    row = check(ledger, await look(stage, ledger) if found is None else found)
    if dead := len(await stage.pipeline.records([stage.pipeline.topics.dlq])):
        row.add("otherwise wrong", f"{dead} dead letters", dead)
    if not row.clean:
        stage.pipeline.show_logs()
    return row


async def look(stage: Stage, ledger: Ledger, apart: Collection[str] = ()) -> Found:
    """Ask everybody. Jaeger is asked for what must be kept, and for what the sink was given of others, but `apart`."""
    pipeline = stage.pipeline
    topics = await holdings.of_kept_topics(pipeline)
    verdicts: dict[str, set[str]] = defaultdict(set)
    for record in await pipeline.records([pipeline.topics.decisions]):
        decision = DecisionRecord.decode(record.value)
        for key, verdict in zip(decision.keys, decision.verdicts, strict=True):
            verdicts[f"{key:016x}"].add(verdict.policy)
    jaeger = stage.proxies["jaeger"].passages
    sent = {key.partition("/")[0] for passage in jaeger for key in passage.keys}
    traces = sorted((ledger.kept.keys() | ledger.late | topics.spans.keys() | sent) - set(apart))
    servers = await holdings.of_servers(pipeline, ledger, traces)
    return Found(servers, topics, verdicts, jaeger, stage.disturbances)
