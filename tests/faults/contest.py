"""The Collector under the SIGKILLs that Tailrace gets: one input, one schedule, what each has of the kept traces.

Both regroup an un-keyed topic and sample it, in two tiers: roles `ingest` and `sample`; two Collectors, the first of
which keys by trace id. The Collectors are those of bench/peer, tuned; once as they are and once with
`message_marking.after`. Logs are left out, and policies that only one of them has.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from bench.peer import LEAST_CPU, Peer
from bench.testbed import create_topics
from tests.end_to_end import holdings
from tests.end_to_end.harness import DECISION_WAIT, RAW_PARTITIONS, Pipeline, running
from tests.end_to_end.traffic import Batches, Feed, Shop
from tests.end_to_end.truth import POLICIES, Holdings, Trace
from tests.faults.checker import Found, Row, check
from tests.faults.ledger import Ledger
from tests.faults.measure import Say
from tests.faults.run import made_of
from tests.services import Kafka, Server, eventually

NAME = "faults-contest"
SHARED = ("errors", "slow", "gold", "canary")
"""Policies that both have and that decide alike: the share is taken by another hash, error logs are not read."""

REQUESTS_PER_SECOND = 100.0
KILLS = 6  # of each tier in turn
KILL_EVERY = 12.0  # seconds: the tier has its partitions again before the next
FLOWS_SECONDS = 60.0
END_SECONDS = 30.0  # after the input's end: session, decision_wait, the last batch
DONE_SECONDS = 120.0


class Agreed(Ledger):
    """What the shared policies keep."""

    def _expected(self, trace_id: str, trace: Trace) -> str:
        policy = trace.expected(trace_id)
        return policy if policy in SHARED else ""


@dataclass(slots=True)
class Side:
    """One contestant: its two tiers, and where its kept spans are."""

    tiers: Sequence[Server]
    output: str


async def contest(kafka: Kafka, folder: Path, say: Say) -> tuple[dict[str, Row], dict[str, Any]]:
    """Rows of the check by contestant, and facts."""
    ledger = Agreed()
    batches = Batches(f"{NAME}-otlp-spans", f"{NAME}-otlp-logs", RAW_PARTITIONS, random.Random(1))
    feed = Feed(kafka.bootstrap, batches, Shop(1), REQUESTS_PER_SECOND, ledger)
    feed.logs = False
    policies = [policy for policy in POLICIES if policy["name"] in SHARED]
    settings = {"sampling": {"policies": policies, "decision_wait": DECISION_WAIT}, "sinks": {}}
    async with AsyncExitStack() as ends:
        pipeline = await ends.enter_async_context(running(Pipeline(kafka, folder, NAME, settings)))
        sides = {
            "Tailrace": Side([await pipeline.start("ingest"), await pipeline.start("sample")], ""),
            "Collector, tuned": await ends.enter_async_context(_collectors(kafka, "plain", (), policies)),
            "Collector, tuned, message_marking.after": await ends.enter_async_context(
                _collectors(kafka, "after", ("after",), policies)
            ),
        }
        feed.start()
        await eventually(lambda: _flows(kafka, pipeline, sides), FLOWS_SECONDS, "everybody has kept something")
        for kill in range(2 * KILLS):
            await asyncio.sleep(KILL_EVERY)
            say(f"SIGKILL of every {('first', 'second')[kill % 2]} tier")
            for side in sides.values():
                side.tiers[kill % 2].kill()
            await asyncio.gather(*(asyncio.to_thread(side.tiers[kill % 2].start) for side in sides.values()))
        await asyncio.sleep(KILL_EVERY)
        await feed.finish()
        await eventually(pipeline.ingested, DONE_SECONDS, "every raw record is read")
        await eventually(pipeline.sampled, DONE_SECONDS, "every row is passed")
        await asyncio.sleep(END_SECONDS)
        found = {name: await _kept(kafka, pipeline, side) for name, side in sides.items()}
    told = (
        f"SIGKILL of each of two tiers {KILLS} times, one every {KILL_EVERY:.0f} s; decision_wait {DECISION_WAIT:g} s"
    )
    facts = {"told": told} | made_of(ledger)
    return {name: _row(ledger, kept) for name, kept in found.items()}, facts


@asynccontextmanager
async def _collectors(
    kafka: Kafka, name: str, over: Sequence[str], policies: Sequence[Mapping[str, Any]]
) -> AsyncIterator[Side]:
    keyed, kept = f"{NAME}-{name}-keyed", f"{NAME}-{name}-kept"
    create_topics(kafka, [keyed, kept], RAW_PARTITIONS)
    first = Peer(kafka, ["split.tuned", "batch", *over], (f"{NAME}-otlp-spans", keyed), f"{name}-1", runtime=LEAST_CPU)
    second = Peer(
        kafka,
        ["sample.tuned", "batch", *over],
        (keyed, kept),
        f"{name}-2",
        policies=policies,
        decision_wait=DECISION_WAIT,
        traces=100_000,
        runtime=LEAST_CPU,
    )
    try:
        await asyncio.gather(asyncio.to_thread(first.start), asyncio.to_thread(second.start))
        yield Side([first, second], kept)
    finally:
        first.close()
        second.close()


async def _flows(kafka: Kafka, pipeline: Pipeline, sides: Mapping[str, Side]) -> bool:
    return all([(await _kept(kafka, pipeline, side)).spans for side in sides.values()])


async def _kept(kafka: Kafka, pipeline: Pipeline, side: Side) -> Holdings:
    """Every span that a contestant has put into its last topic."""
    if not side.output:
        return await holdings.of_kept_topics(pipeline)
    found = Holdings()
    for record in await pipeline.records([side.output]):
        for resource in TracesData.FromString(record.value).resource_spans:
            for scope in resource.scope_spans:
                for span in scope.spans:
                    found.add_span(span.trace_id.hex(), span.span_id.hex(), "")
    return found


def _row(ledger: Ledger, kept: Holdings) -> Row:
    """The same check; what a topic of kept spans does not say (who kept it, counts) is taken for right."""
    servers, expected = Holdings(calls=Counter(ledger.made), durations=Counter(ledger.made)), ledger.kept
    for trace_id, spans in kept.spans.items():
        servers.spans[trace_id] = Counter(dict.fromkeys(spans, 1))
        servers.policies[trace_id] = {expected.get(trace_id, "")}
    return check(ledger, Found(servers, kept, {}))
