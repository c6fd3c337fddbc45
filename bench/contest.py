"""One side, one run: start it, wait until every kept span is in its output topic, count what that cost.

The clock runs from the moment when all processes are up until the last kept span can be read; what a process used
before is its start-up, listed apart. A side that has not put out everything by then is waited for until its output has
been silent for `decision_wait` + SILENCE: what is missing then is lost.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any

from bench.contestants import Contestant, Mode, Task
from bench.load import Load, Written
from bench.measure import Meter, cpu_seconds, native_modules, peak_rss
from bench.outputs import Tally
from bench.testbed import create_topics, stored_bytes
from bench.verdicts import Mix, Truth, difference, digest, judged
from bench.write import write
from tests.services import Kafka

POLL_SECONDS = 0.2
PROGRESS_SECONDS = 5.0
SILENCE = 15.0  # seconds: the Collector decides within a second of decision_wait, and its exporter retries after five
FIRST = 120.0  # seconds: until the first span must have come
LEAD_SECONDS = 1.0  # before the first paced message, so that it is not late
AGO_SECONDS = 600  # the last span of a load that is there already ended this long before

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Given:
    """A raw topic, what is in it and what is to be kept of it. `paced` loads are written during the run."""

    topic: str
    load: Load
    written: Written | None
    truth: Truth

    @property
    def paced(self) -> bool:
        """Whether its spans come while the sides run."""
        return self.written is None


def catch_up(kafka: Kafka, topic: str, load: Load, mix: Mix, partitions: int) -> Given:
    """A topic with the whole load in it."""
    begins = time.time() - AGO_SECONDS - load.spans / load.spans_per_second
    load = _at(load, begins)
    create_topics(kafka, [topic], partitions)
    written = write(kafka.bootstrap, {"traces": (topic, partitions)}, load)
    return Given(topic, load, written, judged(load, mix))


def to_be_paced(kafka: Kafka, topic: str, load: Load, mix: Mix, partitions: int) -> Given:
    """An empty topic."""
    create_topics(kafka, [topic], partitions)
    return Given(topic, load, None, judged(load, mix))


def _at(load: Load, begins: float) -> Load:
    values = asdict(load) | {"start_ms": int(begins * 1000)}
    return Load(**values)


def run(
    kafka: Kafka,
    side: Contestant,
    given: Given,
    task: Task,
    cpus: Collection[int],
    idle: float,
    say: Say,
) -> dict[str, Any]:
    """The figures of one run. `idle` is what the broker uses unasked, CPU seconds per second."""
    with closing(side), closing(Tally(kafka.bootstrap, side.output, task.partitions, side.read)) as tally:
        side.start(cpus)
        pids = {name: server.pid for name, server in side.servers.items()}
        start_up = {name: cpu_seconds(pid) for name, pid in pids.items()}
        meter = Meter(pids | {"broker": kafka.pid}, {"broker": idle})
        with ThreadPoolExecutor(max_workers=1) as writer:
            load = _at(given.load, time.time() + LEAD_SECONDS)
            topics = {"traces": (given.topic, task.partitions)}
            writing = writer.submit(write, kafka.bootstrap, topics, load, paced=True) if given.paced else None  # type: ignore[arg-type]
            ended, written_at = _wait(side, tally, given, task, meter, lambda: writing is None or writing.done(), say)
            made = writing.result() if writing is not None else given.written
        assert made is not None
        elapsed, used = meter.read()
        millions = made.spans / 1e6
        broker = used.pop("broker")
        stored = stored_bytes(kafka, [given.topic, *side.written])
        raw = stored.pop(given.topic)
        missing, surplus = difference(given.truth.kept, tally.traces)
        return {
            "spans": made.spans,
            "traces": made.traces,
            "seconds": ended,
            "measured_seconds": elapsed,
            "spans_per_second": made.spans / max(POLL_SECONDS, ended - side.waits * task.decision_wait),
            # After the last message, and without the wait that both must make: small if the side kept up.
            "drained_seconds": ended - written_at - task.decision_wait if given.paced else None,
            "late_seconds": made.late_seconds if given.paced else None,
            "cpu_seconds": used,
            "cpu_per_million": sum(used.values()) / millions,
            "broker_cpu_per_million": broker / millions,
            "start_up_cpu_seconds": start_up,
            "peak_rss_bytes": {name: peak_rss(pid) for name, pid in pids.items()},
            "kafka_bytes": {name: size for name, size in stored.items() if size},
            "kafka_bytes_per_raw_byte": sum(stored.values()) / raw,
            "kept_traces": len(tally.traces),
            "kept_ids": digest(tally.traces),
            "kept_spans": tally.spans,
            "repeated_spans": tally.repeated,
            "missing_traces": missing,
            "surplus_traces": surplus,
            "native": {name: native_modules(pid) for name, pid in pids.items()},
        }


def _wait(
    side: Contestant,
    tally: Tally,
    given: Given,
    task: Task,
    meter: Meter,
    written: Callable[[], bool],
    say: Say,
) -> tuple[float, float]:
    """Seconds until the last kept span was there, or the last of those that came; and until all was written."""
    wanted = given.truth.spans
    last = said = written_at = 0.0
    while True:
        elapsed = time.monotonic() - meter.began
        if tally.poll():
            last = elapsed
        if not written():
            written_at = elapsed
        quiet = elapsed - max(last, written_at)
        if tally.spans >= wanted and written():
            return elapsed, written_at
        if elapsed - said >= PROGRESS_SECONDS:
            said = elapsed
            say(f"  {elapsed:6.1f} s  {tally.spans:,} of {wanted:,} kept spans are there")
        if dead := [name for name, server in side.servers.items() if not server.is_running]:
            raise RuntimeError(f"{', '.join(dead)} ended\n{side.logs()}")
        if quiet > task.decision_wait + (SILENCE if last else FIRST):
            say(f"  nothing came for {quiet:.0f} s: {wanted - tally.spans:,} kept spans are lost\n{side.logs()}")
            return last, written_at
        time.sleep(POLL_SECONDS)


def task_of(mode: Mode, given: Given, partitions: int, mix: Mix, decision_wait: float) -> Task:
    """What the sides of a mode are asked."""
    return Task(given.topic, partitions, given.truth.traces, mix, decision_wait, mode.metrics)
