"""The same configurations and traces to the Collector and to Tailrace: which traces does each keep?

`python -m bench.parity` starts the Collector (tests/services/recipes.py names the version) with a pipeline for every
configuration of bench/parity_cases.py, sends the traces as OTLP, stops it, which makes it decide, and reads what it
kept from Kafka. Tailrace decides the same bytes with the same policies under `compat: otel`. A difference is printed
with its configuration and trace, cut down to what still differs, and makes it exit 1. The Collector's answers go to
bench/results/parity.json, against which tests/bench/test_parity.py decides again.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import itertools
import json
import sys
import urllib.request
from array import array
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.structs import TopicPartition
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.trace.v1.trace_pb2 import TracesData

from bench.measure import machine, save
from bench.outputs import of_otlp
from bench.parity_cases import CONFIGS, SEED, TRACES, Case, cases
from processors.sampling.compile import compile_policies
from processors.sampling.decide import decide
from processors.sampling.limits import Limits
from processors.sampling.policies import Policy
from processors.sampling.trace_table import TraceTable
from processors.span_labels import SpanLabels
from schemas.otlp_scan import RawRows, SpanColumns, resource_attributes
from tests.pipeline.kafka import create, read_all
from tests.services import Collector, Kafka, free_port
from tests.services.process import HOST
from tests.services.recipes import COLLECTOR, ensure

TOPIC = "parity"
APART_MS = 10_000  # stream time between two deadlines: no limit of a case is short
SHOWN = 5

Kept = list[set[int]]
"""The numbers of the traces that are kept, case by case."""


class Peer(Collector):
    """The Collector of the benchmark, from its own binary."""

    def command(self) -> list[str]:
        """As its parent writes the configuration."""
        _, *arguments = super().command()
        return [str(ensure("collector") / "collector"), *arguments]


def by_collector(given: Sequence[Case], bootstrap: str) -> Kept:
    """What the Collector keeps; TOPIC must be there, and empty."""
    endpoints = [f"{HOST}:{free_port()}" for _ in given]
    config: dict[str, Any] = {"receivers": {}, "processors": {}, "service": {"pipelines": {}}}
    config["exporters"] = {
        "kafka": {"brokers": [bootstrap], "traces": {"topic": TOPIC}, "sending_queue": {"enabled": False}}
    }
    for case, endpoint in zip(given, endpoints, strict=True):
        name = str(case.number)
        config["receivers"][f"otlp/{name}"] = {"protocols": {"http": {"endpoint": endpoint}}}
        config["processors"][f"tail_sampling/{name}"] = {"decision_wait": "10m", "policies": case.policies}
        parts = {"receivers": [f"otlp/{name}"], "processors": [f"tail_sampling/{name}"], "exporters": ["kafka"]}
        config["service"]["pipelines"][f"traces/{name}"] = parts
    with Peer(config) as peer:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(_send, endpoints, given))
        peer.stop()  # it decides all that waits
        if "Shutdown complete" not in (told := peer.log.read_text(encoding="utf-8")):
            raise RuntimeError(f"the Collector ended otherwise:\n{told[-2_000:]}")
        found: dict[int, set[int]] = {case.number: set() for case in given}
        for record in asyncio.run(read_all(bootstrap, TOPIC)):
            for trace_id, _ in of_otlp(record.value or b""):
                found[int.from_bytes(trace_id[12:14], "big")].add(int.from_bytes(trace_id[14:], "big"))
    return [found[case.number] for case in given]


def _send(endpoint: str, case: Case) -> None:
    headers = {"content-type": "application/x-protobuf"}
    urllib.request.urlopen(
        urllib.request.Request(f"http://{endpoint}/v1/traces", together(case).SerializeToString(), headers), timeout=30
    ).close()


def together(case: Case) -> TracesData:
    """All traces of a case as one message."""
    return TracesData(resource_spans=[part for trace in case.traces for part in trace.resource_spans])


def by_tailrace(case: Case) -> set[int]:
    """What Tailrace keeps of a case, from the same bytes."""
    plan = compile_policies([Policy.model_validate(policy) for policy in case.policies], compat="otel")
    data = together(case).SerializeToString()
    rows = RawRows("traces")
    rows.scan(data, array("I", [len(data)]))
    columns, labels = SpanColumns(plan.keys), SpanLabels([])
    columns.scan(data, rows.ends, rows.starts)
    labels.assign(columns, rows.resource, [("", ())] * len(rows.resources))
    resources = [plan.resource_bits(resource_attributes(header, plan.keys)) for header in rows.resources]
    plan.answer(columns, rows, resources)
    numbers = [int.from_bytes(key.to_bytes(8, "big")[6:], "big") for key in rows.keys]
    times, skip = array("q", [number * APART_MS for number in numbers]), array("B", bytes(len(numbers)))
    table, limits = TraceTable(0, None, plan.words), Limits(plan.rates, 1)
    table.fold_spans(columns, rows.keys, times, skip, 0, plan.span_bits, labels)
    return {
        table.due_keys[place] & 0xFFFF
        for place in range(table.list_due(len(case.traces) * APART_MS))
        if decide(plan, table.evidence(place), limits.at(table.due_deadlines[place])).kept
    }


def kept_of(answers: Mapping[str, Any]) -> Kept:
    """What the Collector kept, from what was written."""
    return [{trace for trace in range(TRACES) if int(bits, 16) >> trace & 1} for bits in answers["kept"]]


def fingerprint(given: Sequence[Case]) -> str:
    """Of all policies and spans: answers are to these cases or to none."""
    digest = hashlib.blake2b(digest_size=16)
    for case in given:
        digest.update(json.dumps(case.policies, sort_keys=True).encode())
        digest.update(together(case).SerializeToString(deterministic=True))
    return digest.hexdigest()


def shown(case: Case, trace: int, kept: bool) -> str:
    """A difference, to be read and pasted."""
    spans = MessageToDict(case.traces[trace])
    ours, theirs = ("drops", "keeps") if kept else ("keeps", "drops")
    return (
        f"configuration {case.number}, trace {trace}: Tailrace {ours} it, the Collector {COLLECTOR} {theirs} it\n"
        f"{yaml.safe_dump({'policies': case.policies}, sort_keys=False)}{json.dumps(spans, indent=1)}\n"
    )


def _smaller(case: Case, trace: int) -> Iterator[tuple[list[dict[str, Any]], TracesData]]:
    """Single policies and single spans of a difference, the smallest first."""
    whole, policies = case.traces[trace], case.policies
    spans = [
        TracesData.FromString(whole.SerializeToString())
        for part in whole.resource_spans
        for scope in part.scope_spans
        for _ in scope.spans
    ]
    place = 0
    for number, part in enumerate(whole.resource_spans):
        for span in part.scope_spans[0].spans:
            del spans[place].resource_spans[:]
            alone = spans[place].resource_spans.add()
            alone.CopyFrom(whole.resource_spans[number])
            del alone.scope_spans[0].spans[:]
            alone.scope_spans[0].spans.add().CopyFrom(span)
            place += 1
    yield from itertools.product([*([policy] for policy in policies), policies], [*spans, whole])


def _reduced(case: Case, trace: int, bootstrap: str) -> str:
    """The smallest part of a difference that still is one."""
    parts = [Case(number, policies, [spans]) for number, (policies, spans) in enumerate(_smaller(case, trace))]
    for part in parts:
        for resource in part.traces[0].resource_spans:
            for span in resource.scope_spans[0].spans:
                span.trace_id = span.trace_id[:12] + part.number.to_bytes(2, "big") + bytes(2)
    asyncio.run(_empty(bootstrap))
    for part, kept in zip(parts, by_collector(parts, bootstrap), strict=True):
        if by_tailrace(part) != kept:
            return shown(part, 0, bool(kept))
    return "it does not differ when it is sent alone"


async def _empty(bootstrap: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.delete_records({TopicPartition(TOPIC, 0): RecordsToDelete(before_offset=-1)})
    finally:
        await admin.close()


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m bench.parity", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--seed", type=int, default=SEED, help="other cases, compared and not saved")
    parser.add_argument("--configs", type=int, default=CONFIGS, help="how many; fewer are not saved")
    parser.add_argument("--texts", action="store_true", help="conditions about messages and scopes, not saved either")
    options = parser.parse_args(arguments)
    given = list(cases(options.seed, options.configs, options.texts))
    with Kafka() as kafka:
        asyncio.run(create(kafka.bootstrap, {TOPIC: 1}))
        theirs = by_collector(given, kafka.bootstrap)
        differing = [
            (case, trace, trace in kept)
            for case, kept in zip(given, theirs, strict=True)
            for trace in sorted(by_tailrace(case) ^ kept)
        ]
        for case, trace, kept in sorted(differing, key=lambda d: len(json.dumps(d[0].policies)))[:SHOWN]:
            print(shown(case, trace, kept), "smallest part:", _reduced(case, trace, kafka.bootstrap), sep="\n")
    traces = sum(len(case.traces) for case in given)
    print(f"{len(given)} configurations, {traces} traces, {sum(map(len, theirs))} kept, {len(differing)} differ")
    if (options.seed, options.configs, options.texts) == (SEED, CONFIGS, False) and not differing:
        answers = {
            "collector": COLLECTOR,
            "seed": SEED,
            "configs": CONFIGS,
            "cases": fingerprint(given),
            "kept": [f"{sum(1 << trace for trace in kept):x}" for kept in theirs],  # a bit for each trace
        }
        print(f"written: {Path(save('parity', {'machine': machine(), **answers})).name}")
    return bool(differing)


if __name__ == "__main__":
    sys.exit(main())
