"""Retention overtakes the tail of `sample`: what warns of it before, and what is said and counted of it afterwards.

Nobody reads the raw topics any more, so the clock of `sample` stands and its tail with it, until Kafka has deleted
everything that the tail stands before. A Prometheus with the committed rules scrapes the worker meanwhile.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aiokafka import TopicPartition
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord
from opentelemetry.proto.trace.v1.trace_pb2 import Span as SpanMessage

from pipeline.configuration.config_file import load
from pipeline.kafka.reader import Reader
from schemas.envelope import Envelope
from tests.end_to_end.harness import RAW_PARTITIONS, Destinations, Pipeline, Worker
from tests.end_to_end.traffic import Batches, Feed, Shop
from tests.faults.checker import Row
from tests.faults.ledger import Ledger
from tests.faults.measure import Measured, Say
from tests.faults.run import FLOWS_SECONDS, SETTLED_SECONDS, judged, look, made_of
from tests.faults.schedule import Schedule, Shape
from tests.faults.stage import Stage, staged
from tests.repository import ROOT
from tests.services import Kafka, Prometheus, ServerFailed, eventually
from tests.services.waiting import POLL_SECONDS

RULES = ROOT / "deploy" / "prometheus" / "rules" / "tailrace.rules.yml"
NAME = 950_001
RETENTION = 100.0  # seconds, of which a look at the tail may come 15 late (pipeline/kafka/log_start.py)
BROKER = {"log.retention.check.interval.ms": "1000", "log.roll.ms": "5000"}  # by default it deletes after minutes, days
REQUESTS_PER_SECOND = 20.0
EVERY = "500ms"  # between scrapes
STEADY_SECONDS = 5.0
ABORTED_SECONDS = 30.0
GONE_SECONDS = RETENTION + 60.0
NEAR = 0.8  # of the retention, as the page in the rules says
REFUSES = "retention overtook the tail"


async def overtaken(to: Destinations, folder: Path, say: Say) -> tuple[Row, list[Measured], dict[str, Any]]:
    """The check of all traces but those that waited, figures, facts."""
    plan = Schedule(NAME, Shape(0.0, REQUESTS_PER_SECOND, ()), ("ingest", "sample", "aggregate,sinks"), ())
    topics, ledger = (f"faults-{NAME}-otlp-spans", f"faults-{NAME}-otlp-logs"), Ledger()
    with Kafka(BROKER) as kafka, Prometheus(_rules(folder)) as prometheus:
        batches = Batches(*topics, RAW_PARTITIONS, random.Random(NAME))
        feed = Feed(kafka.bootstrap, batches, Shop(NAME), REQUESTS_PER_SECOND, ledger)
        async with staged(plan, kafka, to, folder, feed, settings={"kafka": {"retention": RETENTION}}) as stage:
            ingest, sample, _ = stage.pipeline.workers
            alerts = Alerts(prometheus)
            with prometheus.scraping("tailrace", [sample.address], EVERY):
                feed.start()
                await eventually(stage.flows, FLOWS_SECONDS, "something has come to every destination")
                await asyncio.sleep(STEADY_SECONDS)
                ingest.kill()
                began = time.monotonic()
                say("nobody reads the raw topics any more")
                cut = await _waiting(stage.pipeline)
                seen = await _watched(stage.pipeline, sample, alerts, began, say)
                gone = await _gone(stage.pipeline)
                refused = await _refuses(sample)
                say(f"{gone} records are gone; a worker that takes over stops and says so: {refused}")
                sample.flags.append("--accept-loss")
                await asyncio.to_thread(sample.start)
                counted = sample.metric("tailrace_dropped_total", reason="retention", intentional="false")

                async def paged() -> bool:
                    return await alerts.state("RecordsExpired", "page") == "firing"

                await eventually(paged, FLOWS_SECONDS, "the loss is paged")
                say(f"with --accept-loss it goes on, {counted:.0f} records are counted, RecordsExpired fires")
                await asyncio.to_thread(ingest.start)
            await feed.finish()
            await stage.pipeline.settled(SETTLED_SECONDS)
            made = made_of(ledger)
            row, lost = await _judged(stage, ledger, cut)
            await stage.forget()
    ahead = {name: seen["overtaken"] - seen[f"{name} firing"] for name in ("ticket", "page")}
    figures = [
        *(
            Measured(
                f"TailNearLogStart ({name}) fires before anything is overtaken, by", seconds, 0, "s", at_least=True
            )
            for name, seconds in ahead.items()
        ),
        Measured("records gone before they were forwarded that are not counted", abs(gone - counted), 0, ""),
        Measured("workers that go on over it unasked", not refused, 0, ""),
    ]
    moments = ", ".join(f"{what} at {at:.0f} s" for what, at in seen.items())
    told = (
        f"The clock of sample stands, retention is {RETENTION:.0f} s: {moments}. The next worker refuses to go on; "
        f"with --accept-loss it counts {counted:.0f} records (reason retention), and RecordsExpired fires. {len(cut)} "
        f"traces had waited: {lost} of those that were to be kept are lost or cut, the table is of all others"
    )
    return row, figures, {"told": told} | made


# ---- what warns -----------------------------------------------------------------------------------------------


def _rules(folder: Path) -> dict[str, Any]:
    """A Prometheus with the committed rules, in which a minute is a second: how often, and for how long."""

    def shorter(found: re.Match[str]) -> str:
        key, count, unit = found.groups()
        return f"{key}{int(count) * (1000 if unit == 'm' else 1000 // 60)}ms"

    text = re.sub(r"(?m)^( +(?:for|interval): )(\d+)([ms])$", shorter, RULES.read_text(encoding="utf-8"))
    file = folder / RULES.name
    file.write_text(text, encoding="utf-8")
    return {"rule_files": [str(file)]}


class Alerts:
    """The states of alerts in a Prometheus."""

    def __init__(self, prometheus: Prometheus) -> None:
        self._url = f"{prometheus.url}/api/v1/rules?type=alert"

    async def state(self, alert: str, severity: str) -> str:
        """inactive, pending or firing."""
        return await asyncio.to_thread(self._state, alert, severity)

    def _state(self, alert: str, severity: str) -> str:
        with urllib.request.urlopen(self._url, timeout=10) as answer:
            groups = json.load(answer)["data"]["groups"]
        (found,) = [
            rule["state"]
            for group in groups
            for rule in group["rules"]
            if (rule["name"], rule["labels"]["severity"]) == (alert, severity)
        ]
        return str(found)


async def _watched(pipeline: Pipeline, sample: Worker, alerts: Alerts, began: float, say: Say) -> Mapping[str, float]:
    """Seconds after which each was seen first, in that order; ends when nothing is left before the tail."""
    seen: dict[str, float] = {}

    def moment(what: str, is_so: bool) -> None:
        if is_so and what not in seen:
            seen[what] = time.monotonic() - began
            say(f"after {seen[what]:.0f} s: {what}")

    while True:
        starts, ends, tails = await _offsets(pipeline)
        moment("overtaken", any(starts[partition] > tail for partition, tail in tails.items()))
        ratios = [s.value for s in await asyncio.to_thread(sample.samples) if s.name == "tailrace_tail_retention_ratio"]
        moment(f"{NEAR:.0%} of the retention used", max(ratios) > NEAR)
        for severity in ("ticket", "page"):
            state = await alerts.state("TailNearLogStart", severity)
            moment(f"{severity} pending", state != "inactive")
            moment(f"{severity} firing", state == "firing")
        if all(starts[partition] == ends[partition] for partition in tails):
            return seen
        assert time.monotonic() - began < GONE_SECONDS, (seen, starts, tails)
        await asyncio.sleep(POLL_SECONDS)


# ---- what is lost ---------------------------------------------------------------------------------------------


async def _offsets(pipeline: Pipeline) -> tuple[dict[TopicPartition, int], ...]:
    """First offsets, ends and the tails of spans and logs."""
    tails = await pipeline.committed("sample")
    reader = Reader(load(str(pipeline.file), {}).kafka)
    try:
        both = {partition: await reader.end(partition) for partition in tails}
    finally:
        await reader.close()
    return {p: first for p, (first, _) in both.items()}, {p: end for p, (_, end) in both.items()}, tails


async def _gone(pipeline: Pipeline) -> int:
    """Offsets before the first one that Kafka has which the tail has not passed."""
    starts, _, tails = await _offsets(pipeline)
    return sum(max(0, starts[partition] - tail) for partition, tail in tails.items())


async def _waiting(pipeline: Pipeline) -> set[str]:
    """The traces that the tail stands before, once what ingest left open is aborted: until then nobody sees it."""
    topics = [pipeline.topics.spans, pipeline.topics.logs]
    async with pipeline.open_transactions(topics) as opened:

        async def none_open() -> bool:
            return not await opened()

        await eventually(none_open, ABORTED_SECONDS, "no transaction is open")
    found: set[str] = set()
    for record in await pipeline.records(topics, since=await pipeline.committed("sample")):
        envelope = Envelope.decode(record.value)
        message = SpanMessage if record.topic == pipeline.topics.spans else LogRecord
        found.update(message.FromString(envelope.row(row)).trace_id.hex() for row in range(len(envelope)))
    return found


async def _refuses(sample: Worker) -> bool:
    """Whether a worker that takes the partitions over ends by itself and says why."""
    sample.kill()
    try:
        await asyncio.to_thread(sample.start)
    except ServerFailed as error:
        return sample.wait() == 1 and REFUSES in str(error)
    return False


async def _judged(stage: Stage, ledger: Ledger, cut: set[str]) -> tuple[Row, int]:
    """What is wrong with the others, all counts included; how many of `cut` had to be kept and are not whole."""
    found = await look(stage, ledger)
    lost = sum(found.servers.spans.get(i, {}).keys() != ledger.traces[i].spans.keys() for i in cut & ledger.kept.keys())
    for trace_id in cut:
        for uid in ledger.traces.pop(trace_id).logs:
            found.servers.logs.pop(uid, None)
        found.servers.spans.pop(trace_id, None)
        found.topics.spans.pop(trace_id, None)
    return await judged(stage, ledger, found), lost
