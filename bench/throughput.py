"""The whole way on a catch-up: `make bench BENCH=throughput`.

A seeded load lies in the raw topics. Every role runs in a process of its own; ingest comes last, and the clock runs
from the moment when its process is up, about to join its group, until Jaeger and Elasticsearch have acknowledged the
last span and log. Prometheus is waited for too (its totals must equal the spans made), but its samples come every
`metrics.interval`.

CPU of a role is what its process spends from that moment until its own stage is through (aggregate: until
Prometheus has everything); imports and start-up, and what a waiting role costs, are listed apart.
"""

from __future__ import annotations

import argparse
import json
import time
import urllib.parse
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from bench.load import Load, Written
from bench.measure import Meter, console, cpu_seconds, keep, machine, native_modules, peak_rss
from bench.testbed import Starting, Testbed, idle_cpu
from bench.throughput_tables import INTERVAL, ROLES, tables
from bench.write import write
from tests.services import Elasticsearch, Jaeger, Kafka, Prometheus

LAST_STARTED = "ingest"
POLL_SECONDS = 0.25  # asking costs a worker about 2 ms; the clock is as coarse as this
PROGRESS_SECONDS = 2.0
AGO_SECONDS = 600  # the load's last span ended this long before the run

out = console()


@dataclass(frozen=True, slots=True)
class Options:
    """What to run."""

    spans: int
    spans_per_message: int
    runs: int
    warm_up_spans: int
    partitions: int
    raw_partitions: int
    decision_wait: float
    limit_seconds: float


class TooSlow(RuntimeError):
    """A stage did not end within the limit; the message says what it had."""


class Counters:
    """How far each stage is, asked of the workers and of Prometheus. A stage that has ended is not asked again."""

    def __init__(self, bed: Testbed, made: Written, prometheus: Prometheus, namespace: str, meter: Meter) -> None:
        self._bed, self._made, self._prometheus, self._meter = bed, made, prometheus, meter
        self._query = f"sum({namespace}_calls_total)"
        self.done: dict[str, float] = {}
        self.cpu: dict[str, float] = {}
        self.now: dict[str, float] = dict.fromkeys(ROLES, 0.0)
        self.kept_spans = self.kept_logs = 0.0
        self._stages: dict[str, Callable[[], bool]] = {
            "ingest": self._ingested,
            "sample": self._sampled,
            "sink.jaeger": self._traces_delivered,
            "sink.elasticsearch": self._logs_delivered,
            "sink.prometheus": self._counted,
        }

    def poll(self, elapsed: float) -> bool:
        """Look once; whether everything has ended."""
        for stage, ended in self._stages.items():
            if stage not in self.done and ended():
                self.done[stage] = elapsed
                self.cpu[stage] = self._meter.read_one(stage)
                if stage == "sink.prometheus":
                    self.cpu["aggregate"] = self._meter.read_one("aggregate")
        return len(self.done) == len(self._stages)

    def line(self, elapsed: float) -> str:
        """Progress for people."""
        total = self._made.spans
        return (
            f"  {elapsed:6.1f} s  ingest {self.now['ingest']:,.0f}, sample {self.now['sample']:,.0f} of {total:,}"
            f"  | jaeger {self.now['sink.jaeger']:,.0f} of {self.kept_spans:,.0f} kept spans"
            f", elasticsearch {self.now['sink.elasticsearch']:,.0f} of {self.kept_logs:,.0f} logs"
            f", prometheus counts {self.now['sink.prometheus']:,.0f}"
        )

    def _metric(self, role: str, name: str, /, **labels: str) -> float:
        return self._bed.workers[role].metric(name, **labels)

    def _ingested(self) -> bool:
        self.now["ingest"] = self._metric("ingest", "tailrace_spans_read_total", role="ingest")
        logs = self._metric("ingest", "tailrace_logs_read_total", role="ingest")
        return self.now["ingest"] >= self._made.spans and logs >= self._made.logs

    def _sampled(self) -> bool:
        """Whether every row has been forwarded or dropped, counted when its transaction is committed."""
        self.kept_spans = self._metric("sample", "tailrace_spans_kept_total")
        self.kept_logs = self._metric("sample", "tailrace_logs_kept_total")
        self.now["sample"] = self.kept_spans + self._metric("sample", "tailrace_dropped_total", signal="spans")
        logs = self.kept_logs + self._metric("sample", "tailrace_dropped_total", signal="logs")
        return self.now["sample"] >= self._made.spans and logs >= self._made.logs

    def _traces_delivered(self) -> bool:
        self.now["sink.jaeger"] = self._metric("sink.jaeger", "tailrace_sink_items_total", outcome="accepted")
        return "sample" in self.done and self.now["sink.jaeger"] >= self.kept_spans

    def _logs_delivered(self) -> bool:
        found = self._metric("sink.elasticsearch", "tailrace_sink_items_total", outcome="accepted")
        self.now["sink.elasticsearch"] = found
        return "sample" in self.done and found >= self.kept_logs

    def _counted(self) -> bool:
        url = f"{self._prometheus.url}/api/v1/query?{urllib.parse.urlencode({'query': self._query})}"
        with urllib.request.urlopen(url, timeout=10) as answer:
            result = json.load(answer)["data"]["result"]
        self.now["sink.prometheus"] = float(result[0]["value"][1]) if result else 0.0
        return self.now["sink.prometheus"] >= self._made.spans


@dataclass(frozen=True, slots=True)
class Servers:
    """The real ones."""

    kafka: Kafka
    jaeger: Jaeger
    elasticsearch: Elasticsearch
    prometheus: Prometheus

    @classmethod
    def started(cls, stack: ExitStack) -> Self:
        """Until the stack ends."""
        out.print("servers: Kafka, Jaeger, Elasticsearch, Prometheus")
        enter = stack.enter_context
        return cls(enter(Kafka()), enter(Jaeger()), enter(Elasticsearch()), enter(Prometheus()))

    @property
    def pids(self) -> dict[str, int]:
        """Of each."""
        return {
            "broker": self.kafka.pid,
            "jaeger": self.jaeger.pid,
            "elasticsearch": self.elasticsearch.pid,
            "prometheus": self.prometheus.pid,
        }

    def sections(self, partitions: int, decision_wait: float, namespace: str) -> dict[str, Any]:
        """Of a configuration that sends everything to them, with names of its own."""
        return {
            "kafka": {"partitions": partitions},
            "sampling": {"decision_wait": decision_wait},
            "metrics": {"interval": INTERVAL, "span_metrics": {"namespace": namespace}},
            "sinks": {
                "jaeger": {"endpoint": self.jaeger.otlp_http},
                "elasticsearch": {"endpoint": self.elasticsearch.url, "dataset": namespace},
                "prometheus": {"endpoint": self.prometheus.remote_write_url},
            },
        }


def one_run(servers: Servers, number: int, options: Options) -> dict[str, Any]:
    """Write the load, start the workers, wait until everything has arrived. `number` is the seed."""
    namespace = f"bench_{number}"
    sections = servers.sections(options.partitions, options.decision_wait, namespace)
    bed = Testbed(servers.kafka, f"throughput-{number}", options.raw_partitions, sections)
    try:
        load = Load(options.spans, 0, options.spans_per_message, seed=number)
        begins = time.time() - AGO_SECONDS - options.spans / load.spans_per_second
        load = Load(options.spans, int(begins * 1000), options.spans_per_message, seed=number)
        made = write(servers.kafka.bootstrap, bed.load_topics, load, say=lambda text: out.print(f"  {text}"))
        out.print(
            f"  load: {made.spans:,} spans of {made.traces:,} traces and {made.logs:,} logs in {made.messages:,} "
            f"messages, {made.value_bytes / made.spans:.0f} B a span, written in {made.seconds:.1f} s"
        )
        idle = idle_cpu({"broker": servers.kafka.pid})
        waiting = [role for role in ROLES if role != LAST_STARTED]
        for role in waiting:
            bed.start(role)
            out.print(f"  {role} is ready")
        idle |= idle_cpu({role: bed.workers[role].pid for role in waiting})
        bed.start(LAST_STARTED, kind=Starting)
        return _measured(bed, servers, made, namespace, idle, options)
    finally:
        bed.close()


def _measured(
    bed: Testbed, servers: Servers, made: Written, namespace: str, idle: Mapping[str, float], options: Options
) -> dict[str, Any]:
    pids = {role: bed.workers[role].pid for role in ROLES}
    start_up = {role: cpu_seconds(pid) for role, pid in pids.items()}
    meter = Meter(pids | servers.pids, {"broker": idle["broker"]})
    counters = Counters(bed, made, servers.prometheus, namespace, meter)
    head_start = bed.workers[LAST_STARTED].metric("tailrace_records_read_total", role=LAST_STARTED) / made.messages
    said = 0.0
    while True:
        elapsed = time.monotonic() - meter.began
        ended = counters.poll(elapsed)
        if ended or elapsed - said >= PROGRESS_SECONDS:
            said = elapsed
            out.print(counters.line(elapsed))
        if ended:
            break
        if elapsed > options.limit_seconds:
            raise TooSlow(f"not within {options.limit_seconds:.0f} s:{counters.line(elapsed)}")
        if dead := [role for role, worker in bed.workers.items() if not worker.is_running]:
            bed.show_logs(dead)
            raise RuntimeError(f"{', '.join(dead)} ended")
        time.sleep(POLL_SECONDS)
    elapsed, cpu = meter.read()
    cpu |= counters.cpu
    stored = bed.stored_bytes([*bed.raw, *bed.internal])
    raw = sum(stored[name] for name in bed.raw)
    wall = max(counters.done["sink.jaeger"], counters.done["sink.elasticsearch"])
    millions = made.spans / 1e6
    return {
        "load": asdict(made),
        "wall_seconds": wall,
        "spans_per_second": made.spans / wall,
        "stage_seconds": counters.done,
        "measured_seconds": elapsed,
        "read_before_the_clock": head_start,  # share of the messages, about 0 if the clock began in time
        "kept_spans": counters.kept_spans,
        "kept_logs": counters.kept_logs,
        "prometheus_counts": counters.now["sink.prometheus"],
        "cpu_seconds": cpu,
        "cpu_seconds_per_million_spans": {name: seconds / millions for name, seconds in cpu.items()},
        "start_up_cpu_seconds": start_up,
        "idle_cpu": dict(idle),
        "peak_rss_bytes": {name: peak_rss(pid) for name, pid in (pids | servers.pids).items()},
        "kafka_bytes": {name.removeprefix(f"{bed.prefix}"): size for name, size in stored.items()},
        "kafka_bytes_per_raw_byte": (sum(stored.values()) - raw) / raw,
        "native": {role: native_modules(pids[role]) for role in ROLES},
        "exact": exact(bed, counters, made),
    }


def exact(bed: Testbed, counters: Counters, made: Written) -> bool:
    """Whether what arrived is what should have, no more and nothing refused."""
    sinks = {"sink.jaeger": counters.kept_spans, "sink.elasticsearch": counters.kept_logs}
    arrived = all(bed.workers[role].metric("tailrace_sink_items_total") == kept for role, kept in sinks.items())
    return arrived and counters.now["sample"] == counters.now["sink.prometheus"] == made.spans


def run(options: Options) -> dict[str, Any]:
    """All runs on the same servers."""
    figures: dict[str, Any] = {"machine": machine(), "options": asdict(options), "runs": []}
    with ExitStack() as stack:
        servers = Servers.started(stack)
        if options.warm_up_spans:
            out.print("warm-up: the servers' compilers and caches; its figures are thrown away")
            one_run(servers, 0, replace(options, spans=options.warm_up_spans))
        for number in range(1, options.runs + 1):
            out.print(f"run {number}/{options.runs}")
            figures["runs"].append(one_run(servers, number, options))
    return figures


def parsed(arguments: Sequence[str] | None = None) -> Options:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.throughput", description=__doc__)
    parser.add_argument("--spans", type=int, default=200_000)
    parser.add_argument("--spans-per-message", type=int, default=200)
    parser.add_argument("--runs", type=int, default=1, help="more than one: medians with extremes (default: 1)")
    parser.add_argument(
        "--warm-up", dest="warm_up_spans", type=int, default=50_000, metavar="SPANS", help="run before, not measured"
    )
    parser.add_argument("--partitions", type=int, default=4, help="of spans and logs (default: 4)")
    parser.add_argument("--raw-partitions", type=int, default=4, help="of each raw topic (default: 4)")
    parser.add_argument("--decision-wait", type=float, default=5.0, help="seconds of stream time (default: 5)")
    parser.add_argument(
        "--limit",
        dest="limit_seconds",
        type=float,
        default=600.0,
        metavar="SECONDS",
        help="after which a run is given up",
    )
    return Options(**vars(parser.parse_args(arguments)))


def main() -> None:
    """Measure, print, save."""
    figures = run(parsed())
    for shown in tables(figures):
        out.print(shown)
    if not all(found["exact"] for found in figures["runs"]):
        out.print("NOT EXACT: what arrived is not what was made; see bench/results/throughput.json")
    keep(out, "throughput", figures, [names for found in figures["runs"] for names in found["native"].values()])


if __name__ == "__main__":
    main()
