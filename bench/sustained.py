"""Whether the whole way keeps up: `make bench BENCH=sustained` or `python -m bench.sustained`.

Every role in a process of its own and every server on one machine, 16,700 spans/s and 1,000 logs/s for a minute. Each
second every role is asked how many records lie before it that it has not fetched (its *head lag*). In a role that keeps
up this does not grow: the slope of a line through the last 30 s is compared with the rate at which records came. Then
the load ends, and the clock runs until everything is in Jaeger, Elasticsearch and Prometheus.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from statistics import linear_regression
from typing import Any

from bench.load import Load, Written
from bench.measure import Meter, console, keep, machine, native_modules, peak_rss, table
from bench.testbed import Testbed
from bench.throughput import Counters, Servers, TooSlow, exact
from bench.throughput_tables import ROLES
from bench.write import write

LAST_SECONDS = 30.0  # of the load, through which the line is drawn
SLOPE_BAR = 0.01  # of the rate at which records come
DRAIN_BAR = 10.0  # seconds beyond decision_wait
LIMIT_SECONDS = 300.0
LOGS_PER_SPAN = 0.0625  # of the shapes that are drawn; it comes to a little more than 1,000 a second
COLUMNS = ("Role", "Records/s", "Head lag, records", "Its slope, % of the rate", "CPU-s per second", "Peak RSS, MiB")

out = console()


@dataclass(frozen=True, slots=True)
class Options:
    """What to run; times in seconds."""

    seconds: float
    spans_per_second: float
    spans_per_message: int
    partitions: int
    raw_partitions: int
    decision_wait: float


@dataclass(frozen=True, slots=True)
class Look:
    """One look at a role: seconds since the load began, records before it, records read so far."""

    at: float
    unread: float
    read: float


def slope(looks: Sequence[Look]) -> tuple[float, float]:
    """Records a second by which the head lag grows, and records a second that come (read, and lag grown)."""
    grows = linear_regression([look.at for look in looks], [look.unread for look in looks]).slope
    span = looks[-1].at - looks[0].at
    comes = (looks[-1].read - looks[0].read + looks[-1].unread - looks[0].unread) / span
    return grows, comes


def run(options: Options) -> dict[str, Any]:
    """One minute of load on servers of its own."""
    figures: dict[str, Any] = {"machine": machine(), "options": asdict(options)}
    with ExitStack() as stack:
        servers = Servers.started(stack)
        sections = servers.sections(options.partitions, options.decision_wait, "sustained")
        bed = Testbed(servers.kafka, "sustained", options.raw_partitions, sections)
        try:
            for role in ROLES:
                bed.start(role)
                out.print(f"  {role} is ready")
            return figures | _loaded(bed, servers, options)
        finally:
            bed.close()


def _loaded(bed: Testbed, servers: Servers, options: Options) -> dict[str, Any]:
    load = Load(
        round(options.seconds * options.spans_per_second),
        int(time.time() * 1000) + 1000,
        options.spans_per_message,
        logs_per_span=LOGS_PER_SPAN,
        spans_per_second=options.spans_per_second,
    )
    pids = {role: bed.workers[role].pid for role in ROLES}
    meter = Meter(pids | servers.pids)
    looks: dict[str, list[Look]] = {role: [] for role in ROLES}
    with ThreadPoolExecutor(max_workers=1) as pool:
        writing: Future[Written] = pool.submit(write, servers.kafka.bootstrap, bed.load_topics, load, paced=True)
        while not writing.done():
            time.sleep(1.0)
            _look(bed, looks, time.monotonic() - meter.began)
            told = ", ".join(f"{role} {looks[role][-1].unread:,.0f}" for role in ROLES)
            out.print(f"  {looks[ROLES[0]][-1].at:5.0f} s  records not fetched: {told}")
        made = writing.result()
    _, cpu = meter.rates()
    late = made.seconds - options.seconds - 1  # a load that could not be written in time measures the writer
    counters = Counters(bed, made, servers.prometheus, "sustained", meter)
    ended = time.monotonic()
    while not counters.poll(time.monotonic() - ended):
        if time.monotonic() - ended > LIMIT_SECONDS:
            raise TooSlow(f"not within {LIMIT_SECONDS:.0f} s: {counters.line(time.monotonic() - ended)}")
        time.sleep(0.25)
    lags = {}
    for role, found in looks.items():
        last = [look for look in found if look.at >= found[-1].at - LAST_SECONDS]
        grows, comes = slope(last)
        lags[role] = {
            "unread": [look.unread for look in found],
            "records_per_second": comes,
            "slope_per_second": grows,
            "slope_share": grows / comes,
        }
    return {
        "load": asdict(made),
        "writer_late_seconds": late,
        "roles": lags,
        "drained_seconds": max(counters.done.values()),
        "cpu_seconds_per_second": cpu,
        "peak_rss_bytes": {name: peak_rss(pid) for name, pid in (pids | servers.pids).items()},
        "native": {role: native_modules(pid) for role, pid in pids.items()},
        "exact": exact(bed, counters, made),
    }


def _look(bed: Testbed, looks: Mapping[str, list[Look]], at: float) -> None:
    for role, found in looks.items():
        samples = bed.workers[role].samples()
        of_role = [sample for sample in samples if sample.labels.get("role") == role]
        unread = sum(sample.value for sample in of_role if sample.name == "tailrace_unread_records")
        read = sum(sample.value for sample in of_role if sample.name == "tailrace_records_read_total")
        found.append(Look(at, unread, read))


def rows(figures: Mapping[str, Any]) -> list[list[str]]:
    """The columns `COLUMNS`, then the servers'."""
    shown = []
    for name, cpu in figures["cpu_seconds_per_second"].items():
        found = figures["roles"].get(name)
        told = ["", "", ""]
        if found is not None:
            lag = found["unread"][-1]
            told = [f"{found['records_per_second']:,.1f}", f"{lag:,.0f}", f"{100 * found['slope_share']:.2f}"]
        shown.append([name, *told, f"{cpu:.2f}", f"{figures['peak_rss_bytes'][name] / (1 << 20):.0f}"])
    return shown


def worst(figures: Mapping[str, Any]) -> tuple[float, float]:
    """What the bars are for: the steepest slope, a share; seconds until everything had arrived, beyond the wait."""
    beyond = figures["drained_seconds"] - figures["options"]["decision_wait"]
    return max(found["slope_share"] for found in figures["roles"].values()), beyond


def verdict(figures: Mapping[str, Any]) -> str:
    """The bars, in a sentence."""
    steepest, beyond = worst(figures)
    return (
        f"The steepest slope is {100 * steepest:.2f} % of what came (bar: {100 * SLOPE_BAR:g} %). Everything had "
        f"arrived {figures['drained_seconds']:.1f} s after the load's end: decision_wait and {beyond:.1f} s "
        f"(bar: {DRAIN_BAR:g} s). Missing or too many: {'none' if figures['exact'] else '**some**'}."
    )


def parsed(arguments: Sequence[str] | None = None) -> Options:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.sustained", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--seconds", type=float, default=60.0, help="of load (default: 60)")
    parser.add_argument("--spans-per-second", type=float, default=16_700.0)
    parser.add_argument("--spans-per-message", type=int, default=200)
    parser.add_argument("--partitions", type=int, default=4, help="of spans and logs (default: 4)")
    parser.add_argument("--raw-partitions", type=int, default=4, help="of each raw topic (default: 4)")
    parser.add_argument("--decision-wait", type=float, default=30.0, help="seconds (default: 30)")
    return Options(**vars(parser.parse_args(arguments)))


def main() -> None:
    """Measure, print, save."""
    figures = run(parsed())
    out.print(table(COLUMNS, rows(figures)))
    out.print(verdict(figures))
    keep(out, "sustained", figures, figures["native"].values())


if __name__ == "__main__":
    main()
