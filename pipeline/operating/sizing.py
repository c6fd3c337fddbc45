"""How much of everything a load takes: what `tailrace size` prints.

Every figure is arithmetic on the load and on measured.json beside this file, which is written from committed benchmarks
(bench/sizing.py) and says where each constant comes from. What is not measured is a named choice below.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.kafka.pace import AHEAD_OF_SLOWEST

MEASURED = Path(__file__).with_name("measured.json")

# Choices.
BUSY = 0.5  # of a core that the ordinary load may use: the rest works off what an outage has left
LEAST_LEFT = 0.1  # of that for spans, however much a worker takes beside them
LEAST_WORKERS = 2  # of each role, so that one may end
PARTITIONS_PER_WORKER = 2  # of sample: room to double it before a resize
LEAST_PARTITIONS = 4
LARGE_CACHE = 2 << 30  # bytes of a worker, for which it is worth saying that it need not be
CACHE_SPARE = 1.5  # times the window, so that a burst does not make the tail read again

SINKS_OF_KEPT = ("sink.jaeger", "sink.elasticsearch")
KEPT_TOPICS = ("kept.spans", "kept.logs")
REGROUPED_TOPICS = ("spans", "logs")  # which `regroup: never` has not
WITH_HORIZON = "decisions"  # kept for kafka.retention and the late horizon


@dataclass(frozen=True, slots=True)
class Load:
    """What is to be carried. Seconds and bytes; `kept_share` of the spans."""

    spans_per_second: float
    decision_wait: float
    late_horizon: float
    retention: float
    replication: int
    raw_bytes_per_span: float
    spans_per_trace: float
    kept_share: float


@dataclass(frozen=True, slots=True)
class Role:
    """One role: workers, the share of a core each uses, and its memory in bytes; None if this was not measured."""

    name: str
    workers: int
    busy: float | None
    memory: float | None


@dataclass(frozen=True, slots=True)
class Size:
    """The answer. `one_worker`: one of `sample` could do it alone. `alone`: it has to, and others stand by."""

    partitions: int
    roles: tuple[Role, ...]
    cache_bytes: float
    window_bytes: float
    kafka_bytes_per_raw_byte: float
    kafka_bytes_per_second: float
    kafka_disk_bytes: float
    reread_seconds: float
    one_worker: bool
    alone: bool = False


class Measured:
    """The constants by name, and what most of them were measured on."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.machine: dict[str, Any] = document["machine"]
        self.constants: list[dict[str, Any]] = document["constants"]
        self._values: dict[str, float] = {each["name"]: each["value"] for each in self.constants}

    def __getitem__(self, name: str) -> float:
        return self._values[name]

    def below(self, prefix: str) -> dict[str, float]:
        """The constants whose names begin with `prefix.`, without it."""
        start = f"{prefix}."
        return {name.removeprefix(start): value for name, value in self._values.items() if name.startswith(start)}

    def where(self) -> str:
        """The machine in a line."""
        m = self.machine
        return (
            f"{m['cpu']}, {m['cores']} cores, {m['memory_gib']:g} GiB, {m['kernel']}, Python {m['python']}, "
            f"{m['date']}, commit {m['commit']}"
        )


def measured() -> Measured:
    """The constants of this version."""
    return Measured(json.loads(MEASURED.read_text(encoding="utf-8")))


def size(
    load: Load, known: Measured, roles: Sequence[str] | None = None, regroup: bool = True, alone: bool = False
) -> Size:
    """What this load takes, by these measurements: of these roles, or of all that were measured.

    Without `regroup` ingest reads metrics alone, and there are no topics of regrouped spans and logs. `alone`: one
    worker of `sample` reads everything (docs/how-to/without-ingest.md).
    """
    cores = {role: _cores(role, load, known, not regroup or alone) for role in known.below("cpu")}
    beside = known.below("second")
    workers = {
        role: max(LEAST_WORKERS, math.ceil(used / max(LEAST_LEFT, BUSY - beside[role]))) for role, used in cores.items()
    }
    at_work = workers | ({"sample": 1} if alone else {})
    partitions = 1 if alone else _rounded_up(max(LEAST_PARTITIONS, workers["sample"] * PARTITIONS_PER_WORKER))
    raw_per_second = load.spans_per_second * load.raw_bytes_per_span
    window = raw_per_second * known["kafka.spans"] * load.decision_wait
    traces_per_second = load.spans_per_second / load.spans_per_trace
    undecided = (1 + AHEAD_OF_SLOWEST) * load.decision_wait  # seconds of traces, while a backlog is worked off
    verdicts = traces_per_second * load.late_horizon
    state = (
        CACHE_SPARE * window
        + traces_per_second * undecided * known["undecided_bytes_per_trace"]
        + verdicts * known["verdict_bytes_per_trace"]
    )
    per_raw_byte = _topics(load, known, regroup)
    disk = sum(
        ratio * (load.retention + (load.late_horizon if topic == WITH_HORIZON else 0))
        for topic, ratio in per_raw_byte.items()
    )
    # One worker ends: another one reads its window and loads its verdicts with what its own share leaves of a core.
    moved = 1 / at_work["sample"]
    work = moved * (load.decision_wait * cores["sample"] + verdicts * known["load_seconds_per_million_verdicts"] / 1e6)
    spare = max(LEAST_LEFT, 1 - cores["sample"] / at_work["sample"] - beside["sample"])

    def role(name: str) -> Role:
        kind = name.partition("/")[0]  # sink.jaeger/eu is another sink.jaeger
        if kind not in cores or (kind == "ingest" and not regroup):
            return Role(name, LEAST_WORKERS, None, None)
        memory = known[f"rss.{kind}"] + (state / at_work[kind] if kind == "sample" else 0)
        busy = cores[kind] / at_work[kind] + beside[kind]
        return Role(name, max(LEAST_WORKERS, at_work[kind]), busy, memory)

    return Size(
        partitions=partitions,
        roles=tuple(role(name) for name in (cores if roles is None else roles)),
        cache_bytes=CACHE_SPARE * window / at_work["sample"],
        window_bytes=window,
        kafka_bytes_per_raw_byte=sum(per_raw_byte.values()),
        kafka_bytes_per_second=sum(per_raw_byte.values()) * raw_per_second,
        kafka_disk_bytes=disk * raw_per_second * load.replication,
        reread_seconds=work / spare,
        one_worker=_cores("sample", load, known, direct=True) + beside["sample"] <= BUSY,
        alone=alone,
    )


def _cores(role: str, load: Load, known: Measured, direct: bool = False) -> float:
    """Cores that the spans take of all workers of a role together.

    Roles that were measured so follow the bytes of a span, sinks of kept data the share that is kept. `direct`:
    `sample` reads raw topics itself.
    """
    growing = known.below("byte") | (known.below("direct_byte") if direct else {})
    more = max(0.0, load.raw_bytes_per_span - known["raw_bytes_per_span"])  # what smaller ones save was not measured
    used = (known[f"cpu.{role}"] + growing.get(role, 0.0) * more) * load.spans_per_second / 1e6
    return used * (load.kept_share / known["kept_share"]) if role in SINKS_OF_KEPT else used


def _topics(load: Load, known: Measured, regroup: bool) -> dict[str, float]:
    """Bytes written to each internal topic per raw byte, one replica."""
    ratios = {topic: ratio for topic, ratio in known.below("kafka").items() if regroup or topic not in REGROUPED_TOPICS}
    kept = load.kept_share / known["kept_share"]
    return {topic: ratio * kept if topic in KEPT_TOPICS else ratio for topic, ratio in ratios.items()}


def _rounded_up(partitions: int) -> int:
    """To a multiple of LEAST_PARTITIONS, which more numbers of workers divide evenly."""
    return math.ceil(partitions / LEAST_PARTITIONS) * LEAST_PARTITIONS


def lines(
    load: Load,
    found: Size,
    known: Measured,
    partitions: int | None = None,
    needs_ingest: Sequence[str] = (),
    metrics: bool = False,
    not_counted: Sequence[str] = (),
) -> Iterable[str]:
    """The answer for a person.

    A file has `partitions`, `needs_ingest` for these reasons, reads `metrics`, and has what is `not_counted`.
    """
    yield (
        f"{load.spans_per_second:,.0f} spans/s of {load.raw_bytes_per_span:,.4g} bytes on disk, "
        f"{load.spans_per_trace:.3g} a trace, decision_wait {load.decision_wait:g} s, {load.kept_share:.0%} kept"
    )
    yield ""
    has = "" if partitions is None else f"   (the file has {partitions})"
    yield f"kafka.partitions                     {found.partitions}{has}"
    window = f"(the window is {_binary(found.window_bytes)})"
    yield f"sampling.cache_bytes per worker      {_binary(found.cache_bytes)}   {window}"
    if found.cache_bytes > LARGE_CACHE:
        yield f"{'less will do, for more CPU:':<36} what does not fit is read from Kafka again"
    yield ""
    yield "role                 workers   each busy   memory each"
    for role in found.roles:
        busy = "?" if role.busy is None else f"{role.busy:.0%}"
        memory = "?" if role.memory is None else _binary(role.memory)
        yield f"{role.name:<20} {role.workers:>7} {busy:>10} {memory:>13}"
    yield from (f"! not in these numbers: {each}" for each in not_counted)
    yield ""
    if any(role.busy is None for role in found.roles):
        yield "?: not measured. Two workers, so that one may end; more if they are busy."
        yield ""
    if found.alone and found.one_worker:
        yield "sample: one worker reads everything, the other stands by."
        yield ""
    elif found.alone:
        yield "sample: one worker is too few for this load. Several share it with regroup: always, or with more"
        yield "partitions and keyed producers (docs/how-to/without-ingest.md)."
        yield ""
    elif found.one_worker and needs_ingest:
        yield "One worker of sample is enough, but not without ingest (docs/how-to/without-ingest.md):"
        yield from (f"    {reason}" for reason in needs_ingest)
        yield ""
    elif found.one_worker and any(role.name == "ingest" and role.busy is not None for role in found.roles):
        left = "ingest reads metrics alone" if metrics else "there is no ingest"
        yield f"One worker of sample is enough: with kafka.partitions: 1 and regroup: never {left},"
        yield "and producers need no keys (docs/how-to/without-ingest.md)."
        yield ""
    yield f"added Kafka bytes per raw byte       {found.kafka_bytes_per_raw_byte:.2f}   (before replication)"
    yield f"added Kafka bytes per second         {_binary(found.kafka_bytes_per_second)}   (likewise)"
    replicas = f"{load.replication} replica{'s' * (load.replication > 1)}"
    yield (
        f"Kafka disk of the internal topics    {_binary(found.kafka_disk_bytes)}"
        f"   (retention {load.retention / 3600:g} h, {replicas})"
    )
    yield f"after one sample worker ends         {found.reread_seconds:.1f} s to read its window again"
    yield ""
    yield from _scaled(load, known)
    yield f"Measured on: {known.where()}."
    yield (
        "Measure yourself, for yours differ: --span-bytes (bytes of the raw span topic on disk / spans in it), "
        "--spans-per-trace, --kept-share; then CPU per span: `make bench BENCH=throughput` for your machine, a trial "
        "for your policies. "
        "`tailrace size --constants` lists every constant and its source."
    )


def _scaled(load: Load, known: Measured) -> Iterable[str]:
    """What CPU follows beside the rate, and what it does not."""
    usual, most = known["raw_bytes_per_span"], known["most_raw_bytes_per_span"]
    yield (
        f"CPU of {' and '.join(known.below('byte'))} follows --span-bytes, along a line through spans of up to "
        f"{most:g} bytes with ever more attributes."
    )
    if load.raw_bytes_per_span > most:
        yield f"Spans of {load.raw_bytes_per_span:g} bytes were not measured: the line is continued."
    if load.raw_bytes_per_span > usual:
        yield f"CPU and memory of the other roles, and of sample beside its window, are as with {usual:g} bytes."
    several = f"{known['spans_per_message']:g} spans"
    yield f"CPU is that of messages of {several}: smaller ones take more (docs/performance-loads.md)."
    yield ""


def _binary(amount: float) -> str:
    """Bytes in the unit that reads best."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.3g} {unit}" if amount < 100 else f"{amount:.0f} {unit}"
        amount /= 1024
    return f"{amount:,.1f} TiB"
