"""What policies cost: ns of CPU per span, from a compressed batch of Kafka to kept bytes, in one process.

    python -m bench.micro.policies

The shop's spans as the broker sends them to `sample` with `regroup: never`, and what the role does with them, but for
sockets and transactions: unpack and decompress, take apart, gather evidence, decide, cut out what is kept. With the
policies of the comparison (bench.verdicts): errors, slow ones, a share; with further ones of six kinds that look at
every span and keep nothing; with each of those that go by keys or by what the fleet may keep; and with conditions on
texts that are read for them alone, which keep nothing. Rounds of all of them alternate, and the best of each counts.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from aiokafka import TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from bench.load import Load, Message, messages
from bench.measure import console, in_process, keep, table
from bench.verdicts import Mix
from pipeline.config import Limits
from pipeline.kafka.decompression import bound
from processors.sampling.compile import compile_policies
from processors.sampling.policies import Policy
from processors.sampling.window import Settings, Window
from schemas.raw_batch import RawReader

FEW, MANY = 3, 30
FIELDS = ["root.service.name", "root.name", "http.route", "http.response.status_code"]
KEYED: dict[str, dict[str, Any]] = {
    "dynamic": {"field_list": FIELDS, "goal_sample_rate": 20},
    "throughput": {"field_list": FIELDS, "goal_spans_per_second": 1_000},
    "rare": {},
    "budget": {"spans_per_second": 1_000},
}
TEXTS = ("status.message", "instrumentation_scope.name")
STAGES = ("Unpack", "Take apart", "Head", "Tail")  # the last with the decisions of the end
COLUMNS = ("Policies", *STAGES, "ns of CPU a span", "Against three")
SPANS = 20_000
ROUNDS = 7
START_MS = 1_800_000_000_000
WAIT_MS = 1_000
HORIZON_MS = 60_000
LONG_AFTER_MS = START_MS + 3_600_000
BATCH_BYTES = 1_000_000  # of values in a batch: librdkafka's batch.size
ZSTD = 4  # Kafka's number of it
RAW = TopicPartition("spans", 0)

out = console()


def batches() -> list[bytes]:
    """The shop's traffic in one partition, as a producer compresses it."""
    found: list[bytes] = []
    values: list[Message] = []
    for message in messages(Load(SPANS, START_MS, logs_per_span=0.0, keyed=1)):
        if sum(len(one.value) for one in (*values, message)) > BATCH_BYTES:
            found.append(compressed(values))
            values = []
        values.append(message)
    return [*found, compressed(values)]


def compressed(values: Sequence[Message]) -> bytes:
    """A record batch of zstd."""
    builder = DefaultRecordBatchBuilder(2, ZSTD, False, -1, -1, -1, 2 * BATCH_BYTES)
    for place, message in enumerate(values):
        builder.append(place, message.timestamp, None, message.value, [])
    return bytes(builder.build())


def sets() -> dict[str, list[dict[str, Any]]]:
    """Policies by what the table calls them: the first are FEW, the second MANY."""
    few = Mix().policies()
    keyed = {f"{FEW} and `{kind}`": [*few, {"name": kind, "type": kind, kind: block}] for kind, block in KEYED.items()}
    texts = {f"{FEW} and `{text}`": [*few, _unmet(text)] for text in TEXTS}
    return {str(FEW): few, str(MANY): Mix(unmet=MANY - FEW).policies()} | keyed | texts


def _unmet(text: str) -> dict[str, Any]:
    return {"name": "text", "type": "ottl_condition", "ottl_condition": {"span": [f'{text} == "no such text"']}}


Spent = tuple[int, list[int]]
"""How many traces were kept, and the ns of CPU of each stage."""


def decider(policies: Sequence[Mapping[str, Any]], given: list[bytes]) -> Callable[[], Spent]:
    """Reads, decides and forwards everything with these policies, anew at every call.

    It is what pipeline.direct does with what it has fetched.
    """
    found = [Policy.model_validate(policy) for policy in policies]
    plan, limits = compile_policies(found, compat="otel", extra_keys=["service.name"]), Limits()
    settings = Settings(1, RAW.topic, None, WAIT_MS, HORIZON_MS, direct=True)

    def decide() -> Spent:
        window = Window(RAW.partition, settings, plan, None)
        reader = RawReader(RAW.topic, RAW.partition, 1, "traces", limits.max_message_bytes, limits.max_span_bytes)
        window.resume({}, {RAW.topic: 0})
        offset, kept, spent, now = 0, 0, [0] * len(STAGES), time.process_time_ns
        for data in given:
            at = [now()]
            fetched = fetcher.PartitionRecords(RAW, fetcher.MemoryRecords(data), [], 0, None, bound(limits), True, 1)
            (several,) = fetched
            records = replace(several.records, offsets=array("q", [offset + one for one in several.records.offsets]))
            at.append(now())
            batch = reader.read(records)
            at.append(now())
            window.head(RAW.topic, offset, LONG_AFTER_MS, batch)
            at.append(now())
            offset = batch.after
            for stage, (begun, done) in enumerate(pairwise(at)):
                spent[stage] += done - begun
        begun = now()
        window.ended(RAW.topic, LONG_AFTER_MS)
        while burst := window.burst():
            window.committed(0)
            kept += burst.stats["decided", "kept"]
        spent[-1] = now() - begun
        assert window.undecided == window.held.bytes == 0
        return kept, spent

    return decide


def measure(given: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, list[float]]:
    """ns of CPU per span and stage with each set of policies."""
    load = batches()
    deciders = {name: decider(policies, load) for name, policies in given.items()}
    kept = {name: decide()[0] for name, decide in deciders.items()}
    assert kept.get(str(MANY), kept[str(FEW)]) == kept[str(FEW)], "the further policies keep nothing"
    rounds = [{name: decide()[1] for name, decide in deciders.items()} for _ in range(ROUNDS)]
    best = {name: min((spent[name] for spent in rounds), key=sum) for name in deciders}
    return {name: [ns / SPANS for ns in spent] for name, spent in best.items()}


def rows(figures: Mapping[str, Any]) -> list[list[str]]:
    """The columns `COLUMNS`."""
    few = sum(figures["ns"][str(FEW)])
    return [
        [name, *(f"{stage:.0f}" for stage in ns), f"{sum(ns):.0f}", f"{sum(ns) / few:.2f}×"]
        for name, ns in figures["ns"].items()
    ]


def main() -> None:
    """Measure, print, save."""
    figures = in_process() | {"ns": measure(sets())}
    out.print(table(COLUMNS, rows(figures)))
    keep(out, "policies", figures)


if __name__ == "__main__":
    main()
