"""What exactly-once costs the broker: `make bench BENCH=transactions`.

For each N (partitions of spans and logs), ingest and sample run in a process of their own at a paced load, then
without any. Counted are transactions, control records (how far the ends of our topics moved, minus the records that
a read_committed consumer sees), records in the coordinators' logs, CPU of the broker over what it uses with the same
topics and no clients, CPU of the workers, and spans per envelope.
"""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

from bench.load import Load
from bench.measure import Meter, console, keep, machine
from bench.testbed import COORDINATORS, Place, Testbed, idle_cpu
from bench.write import write
from schemas.envelope import Envelope
from tests.services import Kafka

ROLES = ("ingest", "sample")
SETTLE_SECONDS = 5.0  # beyond decision_wait: until kept spans flow at their usual rate, or have stopped to
WARM_UP = {"idle_seconds": 0.0, "decision_wait": 5.0}

out = console()


@dataclass(frozen=True, slots=True)
class Options:
    """What to measure."""

    partitions: Sequence[int]
    raw_partitions: int
    spans_per_second: float
    spans_per_message: int
    seconds: float
    idle_seconds: float
    warm_up_seconds: float
    decision_wait: float
    commit_interval: float


@dataclass(frozen=True, slots=True)
class Window:
    """What one stretch of time cost; rates are per second."""

    seconds: float
    transactions: float
    control_records: float
    coordinator_records: float
    broker_cpu: float
    client_cpu: dict[str, float]
    spans: float
    spans_per_envelope: float | None


class Watch:
    """Counters at the beginning of a window; `end` reads them again."""

    def __init__(self, bed: Testbed, seconds: float, broker_idle: float) -> None:
        self._bed = bed
        self._offsets = bed.ends(bed.internal)
        self._coordinators = bed.ends(COORDINATORS)
        committed = _transactions(bed)
        pids = {"broker": bed.kafka.pid} | {role: bed.workers[role].pid for role in ROLES}
        meter = Meter(pids, {"broker": broker_idle})
        time.sleep(seconds)
        self._seconds, self._cpu = meter.rates()
        self._committed = _transactions(bed) - committed
        self._ends = bed.ends(bed.internal)
        self._coordinators_moved = _moved(self._coordinators, bed.ends(COORDINATORS))

    def result(self) -> Window:
        """Read what was written in the window. Do this when nothing is measured any more: it costs the broker."""
        visible = rows = envelopes = 0
        for message in self._bed.visible(self._offsets, self._ends):
            visible += 1
            if message.topic() == self._bed.topics.spans:
                value = message.value()
                assert value is not None
                found = len(Envelope.decode(value))
                rows += found
                envelopes += found > 0
        cpu, seconds = self._cpu, self._seconds
        return Window(
            seconds=seconds,
            transactions=self._committed / seconds,
            control_records=(_moved(self._offsets, self._ends) - visible) / seconds,
            coordinator_records=self._coordinators_moved / seconds,
            broker_cpu=cpu["broker"],
            client_cpu={role: cpu[role] for role in ROLES},
            spans=rows / seconds,
            spans_per_envelope=rows / envelopes if envelopes else None,
        )


def _transactions(bed: Testbed) -> float:
    return sum(bed.workers[role].metric("tailrace_transactions_total", role=role) for role in ROLES)


def _moved(before: Mapping[Place, int], after: Mapping[Place, int]) -> int:
    return sum(end - before.get(place, 0) for place, end in after.items())


def case(kafka: Kafka, partitions: int, options: Options, prefix: str) -> dict[str, Any]:
    """One N: loaded, then idle."""
    sections = {
        "kafka": {"partitions": partitions, "commit_interval": options.commit_interval},
        "sampling": {"decision_wait": options.decision_wait},
    }
    bed = Testbed(kafka, prefix, options.raw_partitions, sections)
    try:
        alone = idle_cpu({"broker": kafka.pid})["broker"]
        out.print(f"  the broker alone: {alone:.3f} CPU-s/s")
        for role in ROLES:
            bed.start(role)
        watched = _loaded(bed, options, alone)
        idle = None
        if options.idle_seconds:
            out.print(f"  no load: waiting for the last decisions, then {options.idle_seconds:.0f} s")
            time.sleep(options.decision_wait + SETTLE_SECONDS)
            idle = Watch(bed, options.idle_seconds, alone)
        for role in ROLES:
            bed.workers[role].stop()
        result = {"partitions": partitions, "broker_idle_cpu": alone, "loaded": asdict(watched.result())}
        if idle is not None:
            result["idle"] = asdict(idle.result())
        return result
    finally:
        bed.close()


def _loaded(bed: Testbed, options: Options, alone: float) -> Watch:
    """Measure while the load runs, and return when it has stopped."""
    stop = threading.Event()
    load = Load(
        spans=10**9,
        start_ms=int(time.time() * 1000),
        spans_per_message=options.spans_per_message,
        spans_per_second=options.spans_per_second,
    )
    failed: list[BaseException] = []

    def run() -> None:
        try:
            write(bed.kafka.bootstrap, bed.load_topics, load, paced=True, stopped=stop.is_set)
        except BaseException as error:
            failed.append(error)

    writer = threading.Thread(target=run, name="load")
    writer.start()
    try:
        out.print(f"  load of {options.spans_per_second:,.0f} spans/s: settling, then {options.seconds:.0f} s")
        time.sleep(options.decision_wait + SETTLE_SECONDS)
        return Watch(bed, options.seconds, alone)
    finally:
        stop.set()
        writer.join()
        if failed:
            raise failed[0]


def run(options: Options) -> dict[str, Any]:
    """All cases on one broker, after a warm-up that is thrown away (the broker's JIT compiler)."""
    figures: dict[str, Any] = {
        "machine": machine(),
        "options": asdict(options),
        "cases": [],
    }
    with Kafka() as kafka:
        if options.warm_up_seconds:
            out.print(f"warm-up, {options.warm_up_seconds:.0f} s")
            short = Options(**asdict(options) | WARM_UP | {"seconds": options.warm_up_seconds})
            case(kafka, options.partitions[0], short, "warm-up")
        for number, partitions in enumerate(options.partitions, 1):
            out.print(f"[{number}/{len(options.partitions)}] N = {partitions}")
            figures["cases"].append(case(kafka, partitions, options, f"transactions-{partitions}"))
    return figures


def table(figures: Mapping[str, Any]) -> Table:
    """The figures for the terminal."""
    options = figures["options"]
    shown = Table(title=f"Transactions at {options['spans_per_second']:,.0f} spans/s and idle; rates per second")
    for heading in SHORT:
        shown.add_column(heading, justify="right")
    for row in rows(figures):
        shown.add_row(*row)
    return shown


SHORT = ("N", "spans", "txns", "control", "coord.", "broker", "ingest", "sample", "spans/env.")
LONG = (
    "N",
    "Spans/s",
    "Transactions/s",
    "Control records/s",
    "Records/s of the coordinators",
    "Broker CPU-s/s",
    "ingest CPU-s/s",
    "sample CPU-s/s",
    "Spans per envelope",
)


def rows(figures: Mapping[str, Any]) -> list[list[str]]:
    """The columns `LONG` for each case, loaded and idle."""
    return [
        [
            str(found["partitions"]),
            f"{window['spans']:,.0f}",
            f"{window['transactions']:.1f}",
            f"{window['control_records']:.0f}",
            f"{window['coordinator_records']:.0f}",
            f"{window['broker_cpu']:.3f}",
            f"{window['client_cpu']['ingest']:.3f}",
            f"{window['client_cpu']['sample']:.3f}",
            "–" if window["spans_per_envelope"] is None else f"{window['spans_per_envelope']:.0f}",
        ]
        for found in figures["cases"]
        for kind in ("loaded", "idle")
        if (window := found.get(kind)) is not None
    ]


def parsed(arguments: Sequence[str] | None = None) -> Options:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.transactions", description=__doc__)
    parser.add_argument("--partitions", type=int, nargs="+", default=[4, 16, 64], metavar="N")
    parser.add_argument("--raw-partitions", type=int, default=4, help="of each raw topic (default: 4)")
    parser.add_argument("--spans-per-second", type=float, default=2000.0)
    parser.add_argument("--spans-per-message", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=30.0, help="measured under load (default: 30)")
    parser.add_argument("--idle-seconds", type=float, default=20.0, help="measured without load (default: 20)")
    parser.add_argument(
        "--warm-up",
        dest="warm_up_seconds",
        type=float,
        default=20.0,
        metavar="SECONDS",
        help="of load thrown away first (default: 20)",
    )
    parser.add_argument("--decision-wait", type=float, default=30.0, help="seconds; idle marks come 10 times in it")
    parser.add_argument("--commit-interval", type=float, default=1.0, help="seconds (default: 1, as configured)")
    return Options(**vars(parser.parse_args(arguments)))


def main() -> None:
    """Measure, print, save."""
    figures = run(parsed())
    out.print(table(figures))
    keep(out, "transactions", figures)


if __name__ == "__main__":
    main()
