"""A trace of a million spans beside usual traffic: docs/reference/limits.md, on real servers.

All of it is there before its deadline, so the whole trace waits between head and tail, with room for a part of it in
the cache. It is kept, which costs more than to drop it: every span is read again, forwarded and delivered.
"""

from __future__ import annotations

import asyncio
import gc
import random
import re
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp

from schemas.envelope import Envelope
from tests.end_to_end.harness import RAW_PARTITIONS, Destinations, Pipeline, Worker
from tests.end_to_end.traffic import Batches, Feed, Message, Shop, producer, send, spans_data
from tests.end_to_end.truth import Holdings, Span, Truth
from tests.faults.checker import Row
from tests.faults.ledger import Ledger
from tests.faults.measure import LATE_MOST, Measured, Say
from tests.faults.run import FLOWS_SECONDS, judged, look, made_of
from tests.faults.schedule import Schedule, Shape
from tests.faults.stage import staged
from tests.faults.watch import Watch
from tests.services import Kafka, eventually
from tests.services.waiting import POLL_SECONDS

NAME = 960_001
SPANS = 1_000_000
SPANS_PER_MESSAGE = 2_000
SENT_SECONDS = 100.0
DECISION_WAIT = 120.0
CACHE_BYTES = 16 << 20  # half of it for each partition of a worker: less than the trace has, compressed
REQUESTS_PER_SECOND = 60.0
STEADY_SECONDS = 10.0
SETTLED_SECONDS = 600.0
PASSED_SECONDS = 60.0  # in which a worker passes a million spans; what else it has waits
FOUND = re.compile(rb'"spanId":"([0-9a-f]{16})"|"tailsampling\.policy","value":\{"stringValue":"([^"]*)"')
NEXT, CHUNK = b'"traceId"', 1 << 20  # where a span begins in an answer; bytes


async def beside_a_huge_trace(
    kafka: Kafka, to: Destinations, folder: Path, say: Say
) -> tuple[Row, list[Measured], dict[str, Any]]:
    """The check of all traces, the large one too; figures, facts."""
    plan = Schedule(NAME, Shape(0.0, REQUESTS_PER_SECOND, ()), ("ingest", "sample", "sample", "aggregate,sinks"), ())
    topics, ledger = (f"faults-{NAME}-otlp-spans", f"faults-{NAME}-otlp-logs"), Ledger()
    feed = Feed(
        kafka.bootstrap, Batches(*topics, RAW_PARTITIONS, random.Random(NAME)), Shop(NAME), REQUESTS_PER_SECOND, ledger
    )
    settings = {"sampling": {"decision_wait": DECISION_WAIT, "cache_bytes": CACHE_BYTES}}
    async with staged(plan, kafka, to, folder, feed, settings=settings) as stage:
        huge = random.Random(NAME).randbytes(16).hex()
        messages = await asyncio.to_thread(list, _messages(topics[0], huge))
        gc.freeze()  # a million objects that stay: no collection looks at them
        async with Watch(stage).watching() as watch:
            feed.start()
            await asyncio.sleep(STEADY_SECONDS)
            began = time.monotonic()
            sent = await _sent(kafka, messages)
            ledger.traces |= sent.traces  # none of it is late
            ledger.made.update(sent.made)
            seconds = time.monotonic() - began
            say(f"{SPANS:,} spans of one trace were sent in {seconds:.0f} s")
            await eventually(stage.flows, DECISION_WAIT + FLOWS_SECONDS, "something has come to every destination")
            await asyncio.sleep(STEADY_SECONDS)
            await feed.finish()
            await stage.pipeline.settled(SETTLED_SECONDS)
            say(f"everything has arrived {time.monotonic() - began:.0f} s after its begin")
            await watch.look()
            samplers = [worker for worker in stage.pipeline.workers if worker.roles == ("sample",)]
            reread = sum(worker.metric("tailrace_tail_reads_total") for worker in samplers)
            passed = watch.passed
            figures = watch.measured()
        found = await look(stage, ledger, apart=[huge])
        await _ask_jaeger(stage.pipeline, huge, found.servers)
        row = await judged(stage, ledger, found)
        delays = await _delays(stage.pipeline, huge, samplers)
        made = made_of(ledger)
        await stage.forget()
        gc.unfreeze()
    shown = found.servers.spans.get(huge, Counter())
    figures = [
        Measured("spans of the trace that Jaeger shows", len(shown), SPANS, "", at_least=True),
        Measured("records of it that the tail read again", reread, 1, "", at_least=True),
        Measured("spans neither kept nor dropped by their counters", abs(made["spans"] - passed), 0, ""),
        Measured("traces of the other sample worker, kept after decision_wait and", delays[False], LATE_MOST, "s"),
        Measured("traces of the same worker, kept after decision_wait and", delays[True], PASSED_SECONDS, "s"),
        *figures,
    ]
    others = REQUESTS_PER_SECOND * 5
    told = (
        f"{SPANS:,} spans of one trace in {seconds:.0f} s beside {others:.0f} spans/s of others; decision_wait "
        f"{DECISION_WAIT:.0f} s, {CACHE_BYTES >> 20} MiB of cache"
    )
    return row, figures, {"told": told} | made


def _messages(topic: str, trace_id: str) -> Iterator[Message]:
    """Times from 0 on. All spans are children of the first one, which has failed: the trace is kept for it alone."""
    rng, begin_ns, root = random.Random(NAME), time.time_ns(), ""
    for number, first in enumerate(range(0, SPANS, SPANS_PER_MESSAGE)):
        facts = []
        for i in range(first, first + SPANS_PER_MESSAGE):
            own, start = rng.randbytes(8).hex(), begin_ns + 1_000 * i
            facts.append(Span(trace_id, own, root, "importer", "row", start, start + 1_000_000, error=not i))
            root = root or own
        yield Message(topic, number % RAW_PARTITIONS, SENT_SECONDS * first / SPANS, spans_data(facts), tuple(facts))


async def _sent(kafka: Kafka, messages: Sequence[Message]) -> Truth:
    """Each at its time, counted from now on."""
    begin, sent, waiting = time.time(), Truth(), deque(messages)
    async with producer(kafka.bootstrap) as client:
        while waiting:
            now, due = time.time(), list[Message]()
            while waiting and begin + waiting[0].at <= now:
                message = waiting.popleft()
                due.append(replace(message, at=begin + message.at))
            await send(client, due, sent)
            await asyncio.sleep(POLL_SECONDS)
    return sent


async def _ask_jaeger(pipeline: Pipeline, trace_id: str, holdings: Holdings) -> None:
    """As `holdings` does, without an object for each of a million spans."""
    assert pipeline.destinations is not None
    url = f"{pipeline.destinations.jaeger.query_url}/api/v3/traces/{trace_id}"
    spans, policies = holdings.spans.setdefault(trace_id, Counter()), holdings.policies.setdefault(trace_id, set())

    def read(text: bytes) -> None:
        for span_id, policy in FOUND.findall(text):
            if span_id:
                spans[span_id.decode()] += 1
            else:
                policies.add(policy.decode())

    async with aiohttp.ClientSession() as http, http.get(url) as response:
        assert response.status == 200, await response.text()
        left = b""
        async for chunk in response.content.iter_chunked(CHUNK):
            left += chunk
            whole = max(0, left.rfind(NEXT))
            read(left[:whole])
            left = left[whole:]
        read(left)


async def _delays(pipeline: Pipeline, huge: str, samplers: Sequence[Worker]) -> Mapping[bool, float]:
    """Most seconds from the begin of another kept trace to its last kept record, less decision_wait.

    True: of those that the worker of the large one had.
    """
    large = int(huge[16:], 16)
    begins, ends, places = dict[int, int](), dict[int, int](), dict[int, int]()  # by the last 64 bits of the trace id
    for record in await pipeline.records([pipeline.topics.kept_spans]):
        envelope = Envelope.decode(record.value)
        for row, key in enumerate(envelope.keys):
            made = envelope.messages[envelope.message[row]][1]
            begins[key] = min(made, begins.get(key, made))
            ends[key], places[key] = max(record.timestamp, ends.get(key, 0)), record.partition
    owned = [{partition.partition for partition in worker.assigned("sample")} for worker in samplers]
    (mine,) = (partitions for partitions in owned if places[large] in partitions)
    most = {False: 0.0, True: 0.0}
    for key in begins.keys() - {large}:
        same = places[key] in mine
        most[same] = max(most[same], (ends[key] - begins[key]) / 1000 - DECISION_WAIT)
    return most
