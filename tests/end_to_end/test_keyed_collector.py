"""A real Collector that keys by trace id, a real Kafka, `regroup: never`: whole traces, each once."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import yaml

from pipeline import telemetry
from pipeline.demo.facts import ERROR
from pipeline.demo.send import send
from pipeline.demo.traffic import Traffic
from pipeline.worker import running
from schemas.ids import trace_key
from tests.pipeline.kafka import DEADLINE
from tests.pipeline.keyed import Keyed
from tests.repository import ROOT, blocks, read_yaml
from tests.schemas.rows import scan_span
from tests.services import Collector, Kafka, eventually

NOON = 1_800_000_000_000_000_000
DECISION_WAIT = 15  # seconds: longer than the sending takes


async def no_wait(_: float) -> None:
    """The traffic is sent as fast as it is taken."""


async def test_traces_of_a_keying_collector_are_whole(kafka: Kafka, tmp_path: Path) -> None:
    keyed = await Keyed(kafka.bootstrap, tmp_path).create()
    keyed.config.sampling.__dict__["decision_wait"] = float(DECISION_WAIT)
    config = read_yaml("deploy/otel-collector/config.yaml")
    del config["receivers"]  # fixed ports; the fixture puts free ones there
    exporter = config["exporters"]["kafka"] | keying()
    exporter |= {"brokers": [kafka.bootstrap]}
    exporter["traces"]["topic"], exporter["logs"]["topic"] = keyed.raw, f"{keyed.raw}.logs"
    config["exporters"]["kafka"] = exporter
    del config["service"]["pipelines"]["metrics"], exporter["metrics"]
    messages = [message for message in Traffic(11, 300, 2, NOON, 10).messages() if not message.dead_letters]
    with Collector(config) as collector:
        await send(messages, collector.otlp_http, no_wait)

    spans = [span for message in messages for span in message.spans]
    logs = [log for message in messages for log in message.logs]
    failed = {span.trace_id for span in spans if span.status == ERROR}
    right = Counter(span.span_id for span in spans if span.trace_id in failed)
    miskeyed = telemetry.REGISTRY.get_sample_value("tailrace_traces_miskeyed_total") or 0
    async with running(keyed.config, ["sample"]):

        async def all_kept() -> bool:
            return (await kept(keyed)).total() >= right.total() and await keyed.counted() >= len(spans)

        await eventually(all_kept, DEADLINE, "every trace with an error is kept")
    assert await kept(keyed) == right
    assert await keyed.counted() == len(spans)
    untraced = sum([len(e) for _, e in await keyed.envelopes(keyed.topics.untraced_logs)])
    assert untraced == sum(not log.trace_id for log in logs)
    of_kept = Counter(key for _, e in await keyed.envelopes(keyed.topics.kept_logs) for key in e.keys)
    of_failed = Counter(trace_key(log.trace_id) for log in logs if log.trace_id in failed)
    assert of_kept & of_failed == of_failed, "the logs of kept traces are kept"
    assert not await keyed.records(keyed.topics.dlq)
    partitions: dict[int, set[int]] = {}
    for record, envelope in await keyed.envelopes(keyed.topics.kept_spans):
        for key in envelope.keys:
            partitions.setdefault(key, set()).add(record.partition)
    assert {len(found) for found in partitions.values()} == {1}
    assert len(set().union(*partitions.values())) == 2, "else one partition has everything"
    assert (telemetry.REGISTRY.get_sample_value("tailrace_traces_miskeyed_total") or 0) == miskeyed


def keying() -> dict[str, bool]:
    """What the how-to tells a Collector beyond the shipped configuration."""
    _, text = blocks(ROOT / "docs" / "how-to" / "without-ingest.md", "yaml")
    exporter = yaml.safe_load(text)["exporters"]["kafka"]
    return {key: value for key, value in exporter.items() if key.startswith("partition_")}


async def kept(keyed: Keyed) -> Counter[bytes]:
    """Span ids in kept.spans."""
    found: Counter[bytes] = Counter()
    for _, envelope in await keyed.envelopes(keyed.topics.kept_spans):
        for row in map(envelope.row, range(len(envelope))):
            found[scan_span(row, 0, len(row), {}).span_id] += 1
    return found
