"""How late a hop makes what passes it: `make bench BENCH=hops` or `python -m bench.hops`.

Everything is told by the broker's own clock: all topics stamp what is appended (LogAppendTime).

- ingest: append time of an envelope minus that of the raw message, for each span;
- sample: append time of a kept span minus that of the record whose mark passed its trace's deadline, for each kept
  trace. Which record that was is found afterwards, by the same state machine on the same log;
- aggregate: append time of a tick minus that of the oldest points in it: it waits for `metrics.interval` instead;
- logs: from the append time of a raw log without a trace id (of a log with one: from the mark that passed its trace's
  deadline) until Elasticsearch has acknowledged its document, seen by a proxy before Elasticsearch.

Where the time goes is told by stamps of the workers (bench/stamped.py, bench/stages.py).

Two runs: hops at 16,700 spans/s with `commit_interval` 100 ms, and logs at 1,000/s of each kind with 25 ms for the
topic of logs and for `sample`, 100 ms for that of spans. `--partitions 1` is kept apart, as hops-1.json: one partition
carries that load as well, with a quarter of the transactions.
"""

from __future__ import annotations

import argparse
import math
import os
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from typing import Any

from confluent_kafka import Message

from bench.acknowledged import Acknowledged
from bench.load import Load
from bench.measure import Meter, console, keep, machine, native_modules, table
from bench.stages import (
    INGEST,
    REQUEST_COLUMNS,
    SAMPLE,
    SINK,
    STAGE_COLUMNS,
    Append,
    Stages,
    ingested,
    request_rows,
    requests,
    sampled,
    stage_rows,
    sunk,
)
from bench.stamped import StampedWorker, Stamps
from bench.testbed import Place, Testbed, create_topics
from bench.untraced import texts, write_untraced
from bench.write import write
from pipeline.config import Config
from pipeline.configuration.window_settings import settings
from pipeline.sample import plan
from processors.sampling.window import Window
from schemas.decision import decided_keys
from schemas.envelope import Envelope
from schemas.ids import trace_key
from schemas.sample import read_tick
from tests.services import Elasticsearch, Kafka

APPEND_TIME = {"message.timestamp.type": "LogAppendTime"}
SETTLE_SECONDS = 15.0  # beyond decision_wait, before anything counts: the servers' own compilers
END_SECONDS = 5.0  # beyond decision_wait, for what is under way
COLUMNS = ("From … to …", "Count", "p50, ms", "p99, ms", "Largest, ms", "Bar for p99, ms")
OWN_MS = 10  # what a hop may add to the interval at which it commits
LOG_MS = 100
PARTITIONS = 4
LOAD = "load"  # this process: what makes the load, and the proxy before Elasticsearch

out = console()


@dataclass(frozen=True, slots=True)
class Options:
    """What to measure; times in seconds."""

    seconds: float
    spans_per_second: float
    spans_per_message: int
    logs_per_second: float
    partitions: int
    decision_wait: float
    commit_interval: float
    log_commit_interval: float
    metrics_interval: float


class Waits:
    """Milliseconds, each with how often."""

    def __init__(self) -> None:
        self._counts: dict[int, int] = {}

    def add(self, ms: float, times: int = 1) -> None:
        """Something took so long. What a clock of whole milliseconds shows as negative is none at all."""
        whole = max(0, math.ceil(ms))
        self._counts[whole] = self._counts.get(whole, 0) + times

    def quantile(self, share: float) -> int:
        """The smallest that so large a share did not exceed. Raises ValueError when there is nothing."""
        left = math.ceil(share * sum(self._counts.values()))
        for ms in sorted(self._counts):
            left -= self._counts[ms]
            if left <= 0:
                return ms
        raise ValueError("nothing was measured")

    def figures(self) -> dict[str, int]:
        """Count, median, 99th percentile and largest, in ms."""
        return {
            "count": sum(self._counts.values()),
            "p50": self.quantile(0.5),
            "p99": self.quantile(0.99),
            "max": max(self._counts),
        }


def appended(record: Message) -> Append:
    """When and where a record is."""
    return Append(record.timestamp()[1], (record.topic() or "", record.partition() or 0), record.offset() or 0)


@dataclass(slots=True)
class Passed:
    """Trace key → the record that made it due, and those after which the tail could pass its first spans and logs."""

    due: dict[int, Append]
    spans: dict[int, Append]
    logs: dict[int, Append]


def pass_again(config: Config, partition: int, records: Sequence[Message], passed: Passed) -> None:
    """Run the state machine once more over one partition of spans and logs in log order, with no interval at all."""
    window = Window(partition, settings(config, config.kafka.partitions), plan(config), None)
    topics = sorted({record.topic() or "" for record in records})
    window.resume(dict.fromkeys(topics), dict.fromkeys(topics, 0))
    for record in sorted(records, key=lambda record: (record.timestamp()[1], record.topic(), record.offset())):
        at, value = appended(record), record.value()
        assert value is not None
        window.head(at.place[0], at.offset, at.ms, value)
        while (burst := window.burst()) is not None:
            for key in decided_keys(burst.decisions):
                passed.due.setdefault(key, at)
            for found, values in ((passed.spans, burst.kept_spans), (passed.logs, burst.kept_logs)):
                for key in {key for value in values for key in Envelope.decode(value).keys}:
                    found.setdefault(key, at)
            window.committed(0)
            if not burst.more:
                break


class Run:
    """Workers under a paced load, and afterwards what the topics say."""

    def __init__(
        self, kafka: Kafka, prefix: str, options: Options, interval: float, sections: Mapping[str, Any]
    ) -> None:
        """`interval` is that of logs and of their verdicts, in seconds."""
        self._kafka, self._options = kafka, options
        raw = [f"{prefix}-raw-spans", f"{prefix}-raw-logs"]
        create_topics(kafka, raw, options.partitions, APPEND_TIME)
        inputs: list[dict[str, Any]] = [
            {"topic": raw[0], "signal": "traces"},
            {"topic": raw[1], "signal": "logs", "commit_interval": interval},
        ]
        self.bed = Testbed(
            kafka,
            prefix,
            options.partitions,
            {
                "kafka": {"partitions": options.partitions, "commit_interval": options.commit_interval},
                "sampling": {"decision_wait": options.decision_wait, "commit_interval": interval},
                "metrics": {"interval": options.metrics_interval},
                **sections,
            },
            inputs,
        )
        self.since: dict[Place, int] = {}
        self.stamps: dict[str, Stamps] = {}
        self.began = self.ended = 0

    def go(self, roles: Collection[str], load: Load, others: Mapping[str, int], untraced: float = 0) -> dict[str, Any]:
        """CPU of the roles and of `others` (pids) while it runs; `untraced` logs a second have no trace id."""
        for role in roles:
            self.bed.start(role, kind=StampedWorker)
        stop, failed = threading.Event(), []

        def guarded(run: Callable[[], object]) -> None:
            try:
                run()
            except BaseException as error:
                failed.append(error)

        def spans() -> object:
            return write(self._kafka.bootstrap, self.bed.load_topics, load, paced=True, stopped=stop.is_set)

        def logs() -> None:
            write_untraced(self._kafka.bootstrap, self.bed.raw[1], self._options.partitions, untraced, stop)

        writers = [threading.Thread(target=guarded, args=(run,)) for run in ((spans, logs) if untraced else (spans,))]
        for writer in writers:
            writer.start()
        try:
            settle = self._options.decision_wait + SETTLE_SECONDS
            out.print(f"  settling {settle:.0f} s, then {self._options.seconds:.0f} s")
            time.sleep(settle)
            self.began = int(time.time() * 1000)
            meter = Meter({role: self.bed.workers[role].pid for role in roles} | {**others, LOAD: os.getpid()})
            time.sleep(self._options.seconds)
            _, cpu = meter.rates()
            self.ended = int(time.time() * 1000)
        finally:
            stop.set()
            for writer in writers:
                writer.join()
        if failed:
            raise failed[0]
        time.sleep(self._options.decision_wait + END_SECONDS)
        native = {role: native_modules(self.bed.workers[role].pid) for role in roles}
        for role, worker in self.bed.workers.items():
            worker.stop()
            assert isinstance(worker, StampedWorker)
            self.stamps[role] = Stamps.load(worker.stamps)
        told = {role: requests(self.stamps[role], self.began, self.ended) for role in roles}
        return {"cpu_seconds_per_second": cpu, "native": native, "requests": told}

    def counts(self, ms: int) -> bool:
        """Whether something that began at this time is measured."""
        return self.began <= ms < self.ended

    def read(self, *topics: str) -> list[Message]:
        """Every committed record of these topics."""
        return list(self.bed.visible({}, self.bed.ends(topics)))

    def passed(self) -> Passed:
        """What the tail of every partition could pass, and when."""
        topics = self.bed.topics
        records = self.read(topics.spans, topics.logs)
        passed = Passed({}, {}, {})
        for partition in range(self._options.partitions):
            pass_again(self.bed.config, partition, [r for r in records if r.partition() == partition], passed)
        return passed


def ingest_waits(run: Run) -> tuple[Waits, Stages]:
    """Raw span appended → its envelope appended."""
    waits, stages = Waits(), Stages(INGEST)
    for record in run.read(run.bed.topics.spans):
        envelope = Envelope.decode(record.value() or b"")
        rows = [0] * len(envelope.messages)
        for message in envelope.message:
            rows[message] += 1
        for (offset, raw_ms), count in zip(envelope.messages, rows, strict=True):
            if run.counts(raw_ms):
                waits.add(record.timestamp()[1] - raw_ms, count)
                raw = Append(raw_ms, (envelope.topic, envelope.partition), offset)
                if moments := ingested(run.stamps["ingest"], raw, appended(record)):
                    stages.add(moments, count)
    return waits, stages


def sample_waits(run: Run, passed: Passed) -> tuple[Waits, Stages]:
    """Deadline passed → first kept span of the trace appended."""
    waits, stages = Waits(), Stages(SAMPLE)
    seen: set[int] = set()
    for record in run.read(run.bed.topics.kept_spans):
        for key in set(Envelope.decode(record.value() or b"").keys) - seen:
            seen.add(key)
            due = passed.due[key]
            if run.counts(due.ms):
                waits.add(record.timestamp()[1] - due.ms)
                ingest, sample = run.stamps["ingest"], run.stamps["sample"]
                if moments := sampled(ingest, sample, due, passed.spans[key], appended(record)):
                    stages.add(moments)
    return waits, stages


def aggregate_waits(run: Run) -> Waits:
    """Points appended → the tick that has them appended."""
    waits = Waits()
    appended = {
        (record.partition(), record.offset()): record.timestamp()[1] for record in run.read(run.bed.topics.points)
    }
    ticks: dict[int, list[Message]] = {}
    for record in run.read(run.bed.topics.samples):
        ticks.setdefault(record.partition() or 0, []).append(record)
    for partition, records in ticks.items():
        counted = 0
        left = iter(records)
        for first in left:
            tick = read_tick(_with(first, left))
            for offset in range(counted, tick.points):
                at = appended.get((partition, offset))
                if at is not None and run.counts(at):
                    waits.add(first.timestamp()[1] - at)
            counted = tick.points
    return waits


def _with(first: Message, left: Iterator[Message]) -> Iterator[bytes]:
    yield first.value() or b""
    for record in left:
        yield record.value() or b""


def hops(kafka: Kafka, options: Options) -> dict[str, Any]:
    """The first run."""
    out.print(f"hops: {options.spans_per_second:,.0f} spans/s, commit_interval {options.commit_interval * 1000:.0f} ms")
    run = Run(kafka, "hops", options, options.commit_interval, {})
    try:
        load = _load(options, options.spans_per_second, 0.06)
        figures = run.go(("ingest", "sample", "aggregate"), load, {"Kafka": kafka.pid})
    finally:
        run.bed.close()
    ingest, ingest_stages = ingest_waits(run)
    sample, sample_stages = sample_waits(run, run.passed())
    figures["ingest"], figures["sample"] = ingest.figures(), sample.figures()
    figures["stages"] = {"ingest": ingest_stages.figures(), "sample": sample_stages.figures()}
    figures["aggregate"] = aggregate_waits(run).figures()
    return figures


def logs(kafka: Kafka, elasticsearch: Elasticsearch, options: Options) -> dict[str, Any]:
    """The second run: half of the logs have a trace."""
    rate = options.logs_per_second
    out.print(f"logs: {rate:,.0f}/s of each kind, commit_interval {options.log_commit_interval * 1000:.0f} ms")
    with Acknowledged(elasticsearch.url) as proxy:
        batch = {"max_items": 1000, "max_age": options.log_commit_interval}
        run = Run(
            kafka,
            "logs",
            options,
            options.log_commit_interval,
            {"sinks": {"elasticsearch": {"endpoint": proxy.url, "dataset": "hops", "batch": batch}}},
        )
        try:
            others = {"Kafka": kafka.pid, "Elasticsearch": elasticsearch.pid}
            figures = run.go(("ingest", "sample", "sink.elasticsearch"), _load(options, 2 * rate, 0.5), others, rate)
        finally:
            run.bed.close()
        waits, stages = log_waits(run, proxy)
    return figures | {
        **{name: found.figures() for name, found in waits.items()},
        "stages": {name: told.figures() for name, told in stages.items()},
    }


def log_waits(run: Run, proxy: Acknowledged) -> tuple[dict[str, Waits], dict[str, Stages]]:
    """Of logs without a trace id, of those of traces, and of all in Elasticsearch; the stages of the ways of both."""
    waits = {"untraced": Waits(), "traced": Waits(), "took": Waits()}
    stages = {"log without a trace id": Stages(INGEST + SINK), "log of a trace": Stages(SAMPLE + SINK)}
    topics = run.bed.topics
    raw = {text: appended(record) for record in run.read(run.bed.raw[1]) for text in texts(record.value() or b"")}
    passed = run.passed()
    kept: dict[int, tuple[Append, Place, int]] = {}  # of each trace the first record with a log of it, and where from
    written: dict[tuple[str, int, int], Append] = {}
    for record in run.read(topics.kept_logs, topics.untraced_logs):
        envelope = Envelope.decode(record.value() or b"")
        place = envelope.topic, envelope.partition
        if record.topic() == topics.untraced_logs:
            written |= {(*place, offset): appended(record) for offset, _ in envelope.messages}
            continue
        for key, message in zip(envelope.keys, envelope.message, strict=True):
            kept.setdefault(key, (appended(record), place, envelope.messages[message][0]))
    ingest, sample, sink = (run.stamps[role] for role in ("ingest", "sample", "sink.elasticsearch"))
    for log in proxy.logs():
        began = passed.due.get(trace_key(bytes.fromhex(log.trace_id))) if log.trace_id else raw[log.text]
        if began is None or not run.counts(began.ms):
            continue
        waits["traced" if log.trace_id else "untraced"].add(log.acknowledged - began.ms)
        waits["took"].add(log.took)
        if not log.trace_id:
            way = ingested(ingest, began, to := written[*began.place, began.offset])
            rest = sunk(ingest, sink, began.place, began.offset, to)
            if way and rest:
                stages["log without a trace id"].add(way + rest[1:])
    for key, (to, place, offset) in kept.items():
        if (due := passed.due.get(key)) is not None and run.counts(due.ms):
            way = sampled(ingest, sample, due, passed.logs[key], to)
            rest = sunk(sample, sink, place, offset, to)
            if way and rest:
                stages["log of a trace"].add(way + rest[1:])
    return waits, stages


def _load(options: Options, spans_per_second: float, logs_per_span: float) -> Load:
    return Load(
        10**9,
        int(time.time() * 1000) + 1000,
        options.spans_per_message,
        spans_per_second=spans_per_second,
        logs_per_span=logs_per_span,
    )


def run(options: Options) -> dict[str, Any]:
    """Both runs on the same broker; Elasticsearch is there for the second alone."""
    figures: dict[str, Any] = {"machine": machine(), "options": asdict(options)}
    with ExitStack() as stack:
        out.print("server: Kafka")
        kafka = stack.enter_context(Kafka())
        figures["hops"] = hops(kafka, options)
        out.print("server: Elasticsearch")
        figures["logs"] = logs(kafka, stack.enter_context(Elasticsearch()), options)
    return figures


def results(partitions: int) -> str:
    """The file of so many."""
    return "hops" if partitions == PARTITIONS else f"hops-{partitions}"


def _shown(figures: Mapping[str, Any]) -> list[tuple[str, Any, float | None]]:
    """Each hop's name, waits and bar in ms."""
    options, hops, logs = figures["options"], figures["hops"], figures["logs"]
    commit, tick = options["commit_interval"] * 1000, options["metrics_interval"] * 1000
    return [
        ("ingest: raw span → envelope", hops["ingest"], OWN_MS + commit),
        ("sample: deadline passed → kept span", hops["sample"], OWN_MS + commit),
        ("aggregate: points → tick", hops["aggregate"], OWN_MS + tick),
        ("log without a trace id: raw → Elasticsearch has acknowledged it", logs["untraced"], LOG_MS),
        ("log of a trace: deadline passed → Elasticsearch has acknowledged it", logs["traced"], LOG_MS),
        ("both: what Elasticsearch says that it took", logs.get("took"), None),
    ]


def told(figures: Mapping[str, Any]) -> list[tuple[str, int, float]]:
    """Each hop that has a bar: its name with N, its p99 and the bar in ms."""
    n = figures["options"]["partitions"]
    return [(f"{name}, N = {n}", found["p99"], bar) for name, found, bar in _shown(figures) if bar is not None]


def rows(figures: Mapping[str, Any]) -> list[list[str]]:
    """The columns `COLUMNS`."""
    return [
        [name, *(f"{found[what]:,}" for what in ("count", "p50", "p99", "max")), "" if bar is None else f"{bar:,.0f}"]
        for name, found, bar in _shown(figures)
        if found is not None
    ]


def stages(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Of each hop that was followed, its stages."""
    found: dict[str, Any] = figures["hops"]["stages"] | figures["logs"]["stages"]
    return found


def asked(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Of each role in each run, the requests of its transactions."""
    return {
        f"{role}, {name}": requested
        for name in ("hops", "logs")
        for role, requested in figures[name]["requests"].items()
    }


def cost(figures: Mapping[str, Any]) -> str:
    """What such short intervals cost, and how much of the machine was in use."""
    told = []
    for name in ("hops", "logs"):
        used = figures[name]["cpu_seconds_per_second"]
        rates = ", ".join(f"{role} {rate:.2f}" for role, rate in used.items())
        whole = f"; {sum(used.values()):.2f} of {figures['machine']['cores']}" if LOAD in used else ""
        told.append(f"- {name}: {rates}{whole}")
    return "\n".join(("CPU-s per second:\n", *told))


def parsed(arguments: Sequence[str] | None = None) -> Options:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.hops", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--seconds", type=float, default=30.0, help="measured, of each run (default: 30)")
    parser.add_argument("--spans-per-second", type=float, default=16_700.0)
    parser.add_argument("--spans-per-message", type=int, default=200)
    parser.add_argument("--logs-per-second", type=float, default=1_000.0, help="of each kind (default: 1,000)")
    parser.add_argument("--partitions", type=int, default=PARTITIONS, help="of every topic (default: 4)")
    parser.add_argument("--decision-wait", type=float, default=5.0, help="seconds (default: 5)")
    parser.add_argument("--commit-interval", type=float, default=0.1, help="seconds, of the hops (default: 0.1)")
    parser.add_argument("--log-commit-interval", type=float, default=0.025, help="seconds, of the logs")
    parser.add_argument("--metrics-interval", type=float, default=1.0, help="seconds between ticks (default: 1)")
    return Options(**vars(parser.parse_args(arguments)))


def main() -> None:
    """Measure, print, save."""
    figures = run(parsed())
    out.print(table(COLUMNS, rows(figures)))
    out.print(table(STAGE_COLUMNS, stage_rows(stages(figures))))
    out.print(table(REQUEST_COLUMNS, request_rows(asked(figures))))
    out.print(cost(figures))
    keep(
        out,
        results(figures["options"]["partitions"]),
        figures,
        [names for name in ("hops", "logs") for names in figures[name]["native"].values()],
    )


if __name__ == "__main__":
    main()
