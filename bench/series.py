"""Many series into Prometheus: `make bench BENCH=series` or `python -m bench.series`.

Every second each of 100,000 series with ten labels is counted once more, for a minute. The points go to the topic of
points, as `sample` writes those of spans; `aggregate` and `sink.prometheus` run in a process of their own each, with a
tick a second, everything else as configured by default. The clock stops when Prometheus' own `sum` says what was
counted. CPU is that of both processes from when they are ready until then; what it takes to start is listed apart.
"""

from __future__ import annotations

import argparse
import json
import time
import urllib.parse
import urllib.request
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from random import Random
from typing import Any

from confluent_kafka import Producer

from bench.measure import Meter, console, cpu_seconds, keep, machine, native_modules, peak_rss, table
from bench.testbed import SILENT, Testbed
from schemas.point import Labels, PointBatch, Shape
from tests.services import Kafka, Prometheus

ROLES = ("aggregate", "sink.prometheus")
LABELS = 10
VALUES = 1000  # of each label but the last one, whose values are the series' own
ROWS_A_RECORD = 1000  # about what `sample` puts into one
INTERVAL = 1.0  # seconds between two ticks
POLL_SECONDS = 0.25
LIMIT_SECONDS = 120.0  # after the load
BAR = 60.0  # CPU seconds for 6 million samples
COLUMNS = ("Process", "CPU-s", "µs a sample", "CPU-s at start", "Peak RSS, MiB")

out = console()


@dataclass(frozen=True, slots=True)
class Options:
    """What to run."""

    series: int
    metrics: int
    seconds: int


@dataclass(frozen=True, slots=True)
class Counted:
    """One second's records, always the same ones, by metric, and the sum of what they count."""

    records: list[tuple[str, bytes]]
    total: int


def counted(options: Options) -> Counted:
    """Every series once; how much is its own number."""
    random = Random(5)
    shape = Shape("counter", tuple(f"label_{number}" for number in range(LABELS)), (), 1)
    pools = [[random.randbytes(8).hex() for _ in range(VALUES)] for _ in range(LABELS - 1)]
    records, total = [], 0
    for number in range(options.metrics):
        rows: list[tuple[Labels, float]] = []
        for _ in range(options.series // options.metrics):
            much = random.randint(1, 9)
            rows.append(((*map(random.choice, pools), random.randbytes(8).hex()), much))
            total += much
        name = f"bench_{number}_total"
        for first in range(0, len(rows), ROWS_A_RECORD):
            records.append((name, PointBatch(name, shape, 0, list(rows[first : first + ROWS_A_RECORD])).encode()))
    return Counted(records, total)


def ask(prometheus: Prometheus, query: str) -> float:
    """The number that an instant query gives; 0 for none."""
    url = f"{prometheus.url}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
    with urllib.request.urlopen(url, timeout=60) as answer:
        result = json.load(answer)["data"]["result"]
    return float(result[0]["value"][1]) if result else 0.0


def write(bootstrap: str, topic: str, load: Counted, seconds: int) -> float:
    """The load, second by second; returns how long it took."""
    producer = Producer({"bootstrap.servers": bootstrap, "log_level": SILENT, "linger.ms": 5})
    began = time.monotonic()
    for second in range(seconds):
        time.sleep(max(0.0, began + second - time.monotonic()))
        for name, value in load.records:
            producer.produce(topic, value, name.encode())
        producer.flush(30)
        if second % 10 == 9:
            out.print(f"  {second + 1} of {seconds} s")
    return time.monotonic() - began


def run(options: Options) -> dict[str, Any]:
    """Start everything, write, wait, ask."""
    figures: dict[str, Any] = {"machine": machine(), "options": asdict(options)}
    load = counted(options)
    per_metric = 2 * options.series // options.metrics
    with Kafka() as kafka, Prometheus() as prometheus:
        sections = {
            "kafka": {"metric_partitions": 1},
            "metrics": {"interval": INTERVAL, "series_per_metric": per_metric, "values_per_label": per_metric},
            "sinks": {"prometheus": {"endpoint": prometheus.remote_write_url}},
        }
        bed = Testbed(kafka, "series", 1, sections)
        try:
            for role in ROLES:
                bed.start(role)
            pids = {role: bed.workers[role].pid for role in ROLES}
            servers = {"broker": kafka.pid, "prometheus": prometheus.pid}
            start_up = {role: cpu_seconds(pid) for role, pid in pids.items()}
            meter = Meter(pids | servers)
            out.print(f"{options.series:,} series for {options.seconds} s")
            wrote = write(kafka.bootstrap, bed.topics.points, load, options.seconds)
            truth = load.total * options.seconds
            deadline = time.monotonic() + LIMIT_SECONDS
            while (found := ask(prometheus, 'sum({__name__=~"bench_.*"})')) < truth and time.monotonic() < deadline:
                time.sleep(POLL_SECONDS)
            elapsed, cpu = meter.read()
            samples = bed.workers["sink.prometheus"].metric("tailrace_sink_items_total", outcome="accepted")
            return figures | {
                "wrote_seconds": wrote,
                "elapsed_seconds": elapsed,
                "samples": samples,
                "cpu_seconds": cpu,
                "start_up_cpu_seconds": start_up,
                "peak_rss_bytes": {name: peak_rss(pid) for name, pid in (pids | servers).items()},
                "native": {role: native_modules(pid) for role, pid in pids.items()},
                "truth": {"count": options.series, "sum": truth},
                "found": {
                    "count": ask(prometheus, 'count({__name__=~"bench_.*"})'),
                    "sum": found,
                    "samples": ask(prometheus, 'sum(count_over_time({__name__=~"bench_.*"}[10m]))'),
                },
            }
        finally:
            bed.close()


def both(figures: Mapping[str, Any]) -> float:
    """CPU seconds of the two roles for as many samples as there are series and seconds."""
    options = figures["options"]
    spent = sum(figures["cpu_seconds"][role] for role in ROLES)
    return float(spent * options["series"] * options["seconds"] / figures["samples"])


def rows(figures: Mapping[str, Any]) -> list[list[str]]:
    """The columns `COLUMNS`."""
    samples = figures["samples"]
    return [
        [
            {"broker": "Kafka broker", "prometheus": "Prometheus"}.get(name, name),
            f"{seconds:.1f}",
            f"{seconds / samples * 1e6:.2f}",
            f"{figures['start_up_cpu_seconds'][name]:.1f}" if name in ROLES else "",
            f"{figures['peak_rss_bytes'][name] / (1 << 20):.0f}",
        ]
        for name, seconds in figures["cpu_seconds"].items()
    ]


def is_exact(figures: Mapping[str, Any]) -> bool:
    """Whether Prometheus says what was counted."""
    return all(figures["truth"][name] == figures["found"][name] for name in figures["truth"])


def verdict(figures: Mapping[str, Any]) -> str:
    """Whether what Prometheus says is what was counted, and what it cost."""
    options, truth, found = figures["options"], figures["truth"], figures["found"]
    exact = "exact" if is_exact(figures) else "NOT EXACT"
    return (
        f"`count` {found['count']:,.0f} of {truth['count']:,}, `sum` {found['sum']:,.0f} of {truth['sum']:,}: {exact}. "
        f"{figures['samples']:,.0f} samples were accepted in {figures['elapsed_seconds']:.0f} s. aggregate and sink: "
        f"{both(figures):.1f} CPU-s for {options['series'] * options['seconds'] / 1e6:g} million samples."
    )


def parsed(arguments: Sequence[str] | None = None) -> Options:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.series", description=__doc__)
    parser.add_argument("--series", type=int, default=100_000)
    parser.add_argument("--metrics", type=int, default=10, help="that they belong to (default: 10)")
    parser.add_argument("--seconds", type=int, default=60)
    return Options(**vars(parser.parse_args(arguments)))


def main() -> None:
    """Measure, print, save."""
    figures = run(parsed())
    out.print(table(COLUMNS, rows(figures)))
    out.print(verdict(figures))
    keep(out, "series", figures, figures["native"].values())


if __name__ == "__main__":
    main()
