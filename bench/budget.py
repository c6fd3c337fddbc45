"""Whether three workers hold a budget of the fleet on skewed partitions: `make bench BENCH=budget`.

5,000 spans/s for more than a minute, of which one partition has two fifths and others nothing; three processes of
`sample` share the partitions. What is kept of the first minute of them, from a cold start on, is compared with the
budget: in spans on an un-keyed topic, in bytes on one keyed by trace id. The same load under `rate_limiting`, which
gives every partition one Nth, is what it is to be told from.
"""

from __future__ import annotations

import argparse
import time
from array import array
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any

from bench.load import Load, traces
from bench.measure import console, keep, machine, native_modules, table
from bench.testbed import Testbed, create_topics
from bench.write import write
from schemas.envelope import Envelope
from schemas.ids import partition_of
from tests.services import Kafka

WORKERS = 3
SKEW = (40, 20, 10, 10, 5, 5, 4, 3, 2, 1, 0, 0)  # percent of the traces, by partition
SPANS_PER_SECOND = 5_000.0
SPANS_PER_MESSAGE = 10  # few: agents flush when a batch is full, and a quiet partition's would wait for long
DECISION_WAIT = 5.0
MORE_SECONDS = 5.0  # of load, so that the minute ends before it does
WINDOW_SECONDS = 5  # in which the rate is looked at on its own
SETTLED_SECONDS = 120.0
POLL_SECONDS = 0.5
BAR = 0.05
COLUMNS = (
    "Policy",
    "Allowed a second",
    "Kept a second",
    "Off by, %",
    f"In {WINDOW_SECONDS} s, a second",
    "Kept of the spans of a partition, %",
    "Partitions of each worker",
)

out = console()


@dataclass(frozen=True, slots=True)
class Case:
    """A policy that allows `per_second` spans or bytes; `direct`: on a topic keyed by trace id."""

    policy: Mapping[str, Any]
    per_second: int
    unit: str
    direct: bool = False


CASES = {
    "budget": Case({"type": "budget", "budget": {"spans_per_second": 1_000}}, 1_000, "spans"),
    "bytes": Case({"type": "budget", "budget": {"bytes_per_second": 250_000}}, 250_000, "bytes", direct=True),
    "rate": Case({"type": "rate_limiting", "rate_limiting": {"spans_per_second": 1_000}}, 1_000, "spans"),
}


def run(kafka: Kafka, name: str, seconds: float) -> dict[str, Any]:
    """One policy under the load, and what was kept of it."""
    case, partitions = CASES[name], len(SKEW)
    sections: dict[str, Any] = {
        "kafka": {"partitions": partitions},
        "sampling": {"policies": [{"name": "fleet", **case.policy}], "decision_wait": DECISION_WAIT},
    }
    raw = f"budget-{name}-raw"
    create_topics(kafka, [raw], partitions)
    if case.direct:
        sections["regroup"] = "never"
    bed = Testbed(kafka, f"budget-{name}", partitions, sections, [{"topic": raw, "signal": "traces"}])
    with closing(bed), ExitStack() as stack:
        samples = [stack.enter_context(closing(bed.start("sample"))) for _ in range(WORKERS)]
        if not case.direct:
            bed.start("ingest")
        _wait(
            lambda: all(worker.assigned("sample") and worker.is_ready() for worker in samples),
            "every worker has partitions",
        )
        spans = round((seconds + MORE_SECONDS) * SPANS_PER_SECOND)
        load = Load(
            spans,
            int(time.time() * 1000) + 1000,
            SPANS_PER_MESSAGE,
            spans_per_second=SPANS_PER_SECOND,
            logs_per_span=0.0,
            keyed=partitions if case.direct else 0,
            skew=SKEW,
        )
        out.print(f"{name}: {spans:,} spans at {SPANS_PER_SECOND:,.0f} spans/s")
        made = write(kafka.bootstrap, {"traces": (raw, partitions)}, load, paced=True)

        def passed() -> float:
            kept = sum(worker.metric("tailrace_spans_kept_total") for worker in samples)
            return kept + sum(worker.metric("tailrace_dropped_total", signal="spans") for worker in samples)

        # Without ingest nothing says that a partition has ended: its last traces wait for the next record.
        _wait(lambda: passed() >= (0.9 if case.direct else 1.0) * spans, "every span is kept or dropped")
        kept = [
            (message.partition(), Envelope.decode(message.value() or b""))
            for message in bed.visible({}, bed.ends([bed.topics.kept_spans]))
        ]
        return {
            "late_seconds": made.seconds - spans / SPANS_PER_SECOND,
            "workers": [len({place.partition for place in worker.assigned("sample")}) for worker in samples],
            "native": [native_modules(worker.pid) for worker in samples],
            **summed(case, load, kept, seconds),
        }


def summed(case: Case, load: Load, kept: Sequence[tuple[int, Envelope]], seconds: float) -> dict[str, Any]:
    """What was kept (partition, rows) a second of the load, and of the spans of each partition that has some."""
    windows = [0] * round(seconds / WINDOW_SECONDS)
    spans: Counter[int] = Counter()
    for partition, envelope in kept:
        spans[partition] += len(envelope)
        for row, length in enumerate(envelope.lengths(array("I", range(len(envelope))))):
            _, at = envelope.messages[envelope.message[row]]
            window = (at - load.start_ms) // (WINDOW_SECONDS * 1000)
            if window < len(windows):
                windows[window] += 1 if case.unit == "spans" else length
    came: Counter[int] = Counter()
    for trace in traces(load):
        came[partition_of(trace.trace_id, len(SKEW))] += trace.spans
    return {
        "per_second": sum(windows) / seconds,
        "windows": [window / WINDOW_SECONDS for window in windows],
        "shares": {str(partition): spans[partition] / count for partition, count in sorted(came.items())},
    }


def _wait(until: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + SETTLED_SECONDS
    while not until():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {SETTLED_SECONDS:.0f} s: {what}")
        time.sleep(POLL_SECONDS)


def off(name: str, found: Mapping[str, Any]) -> float:
    """How far what was kept is from what is allowed, of that."""
    return float(found["per_second"] / CASES[name].per_second - 1)


def rows(figures: Mapping[str, Any]) -> list[list[str]]:
    """The columns `COLUMNS`."""
    shown = []
    for name, found in figures["cases"].items():
        case, windows = CASES[name], found["windows"]
        shares = [100 * share for share in found["shares"].values()]
        shown.append(
            [
                f"`{case.policy['type']}`, {'keyed' if case.direct else 'un-keyed'} topic",
                f"{case.per_second:,} {case.unit}",
                f"{found['per_second']:,.0f}",
                f"{100 * off(name, found):+.1f}",
                f"{min(windows):,.0f} to {max(windows):,.0f}",
                f"{min(shares):.0f} to {max(shares):.0f}",
                ", ".join(map(str, found["workers"])),
            ]
        )
    return shown


def verdict(figures: Mapping[str, Any]) -> str:
    """The bar, in a sentence."""
    worst = max(abs(off(name, found)) for name, found in figures["cases"].items() if name != "rate")
    return f"The budget is held within {100 * worst:.1f} % (bar: {100 * BAR:g} %)."


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print, save."""
    parser = argparse.ArgumentParser(prog="python -m bench.budget", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--seconds", type=float, default=60.0, help="that are looked at (default: 60)")
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    given = parser.parse_args(arguments)
    figures: dict[str, Any] = {"machine": machine(), "options": {"seconds": given.seconds}, "cases": {}}
    with Kafka() as kafka:
        for name in given.cases:
            figures["cases"][name] = run(kafka, name, given.seconds)
    out.print(table(COLUMNS, rows(figures)))
    out.print(verdict(figures))
    keep(out, "budget", figures, [names for found in figures["cases"].values() for names in found["native"]])


if __name__ == "__main__":
    main()
