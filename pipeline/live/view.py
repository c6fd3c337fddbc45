"""What is shown of one worker or of several: totals, rates, and the parts of the page, out of their snapshots.

Totals are since each worker started. Rates compare a worker with itself some seconds ago, so one that restarts counts
from zero and never backwards.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from pipeline.kafka.topics import Topics
from pipeline.live.graph import EMPTY, Graph
from pipeline.live.red import Service, charts
from pipeline.live.snapshot import Limit, Sample, Snapshot, TraceSummary

MOST_TRACES = 60
RATE_SECONDS = 10.0  # that rates look back
STUCK_SECONDS = 10.0  # that a sink's offset stands still before it is told: answers and batches take some
LONGEST_GAP = 3 * RATE_SECONDS  # seconds between two looks: over more a rate would be an average of what is long past


@dataclass(frozen=True, slots=True)
class Observed:
    """One worker: what it said some seconds ago and now; `now` None: it does not answer, and `error` says how."""

    name: str
    before: Snapshot | None
    now: Snapshot | None
    error: str = ""


class Past:
    """The last snapshots of some workers, so that each can be compared with itself.

    One that is older than `gap` seconds is forgotten when another comes.
    """

    def __init__(self, gap: float = LONGEST_GAP) -> None:
        self._gap = gap
        self._snapshots: dict[str, deque[Snapshot]] = defaultdict(deque)

    def observed(self, name: str, now: Snapshot) -> Observed:
        """A worker as of now, and what it said about RATE_SECONDS ago, or as far back as is known."""
        past = self._snapshots[name]
        if past and not 0 <= now.time - past[-1].time <= self._gap:  # a clock was set back, or nobody watched
            past.clear()
        while len(past) > 1 and now.time - past[1].time >= RATE_SECONDS:
            past.popleft()
        before = past[0] if past else None
        past.append(now)
        return Observed(name, before, now)


@dataclass(frozen=True, slots=True)
class Count:
    """A counter: since the start, and per second lately."""

    total: float = 0.0
    rate: float = 0.0

    def __add__(self, other: Count) -> Count:
        return Count(self.total + other.total, self.rate + other.rate)


@dataclass(frozen=True, slots=True)
class WorkerView:
    """One worker; `memory` in bytes, `cpu` in cores."""

    name: str
    error: str
    memory: float
    cpu: float


@dataclass(frozen=True, slots=True)
class RoleView:
    """One role in all workers. `ready` None: in none of them; `unread` records wait in its topics.

    `stuck`: seconds that a sink has held rows which its destination does not take, 0 below STUCK_SECONDS.
    """

    name: str
    ready: bool | None
    workers: int
    unread: float
    read: dict[str, Count]
    stuck: float = 0.0


@dataclass(frozen=True, slots=True)
class Drop:
    """Rows that were not forwarded (`where` is the signal), or dead letters (`where` is the stage)."""

    where: str
    reason: str
    intentional: bool
    dead_letter: bool
    count: Count


@dataclass(frozen=True, slots=True)
class PolicyView:
    """Traces that this policy kept, as the first of those that voted for it, or dropped."""

    name: str
    type: str
    kept: Count
    dropped: Count


@dataclass(frozen=True, slots=True)
class View:
    """Everything on the page. `lag` is seconds that decisions are behind, `window` bytes between tail and head.

    `without_ingest`: none of these workers runs it, and `sample` reads what it writes. If none elsewhere does either,
    the lag stands still, whatever waits in raw topics.
    """

    time: float
    workers: list[WorkerView]
    roles: list[RoleView]
    spans: Count
    logs: Count
    kept_spans: Count
    kept_logs: Count
    kept_traces: Count
    dropped_traces: Count
    dead_letters: Count
    lag: float
    without_ingest: bool
    window: float
    series: float
    series_budget: float
    delivered: dict[str, dict[str, Count]]
    retries: dict[str, dict[str, Count]]
    drops: list[Drop]
    policies: list[PolicyView]
    services: list[Service]
    limits: list[Limit]
    traces: list[TraceSummary]
    payloads: bool = False
    graph: Graph = EMPTY


def view(
    observed: Sequence[Observed],
    now: float,
    *,
    policies: Mapping[str, str] | None = None,
    graph: Graph = EMPTY,
    payloads: bool = False,
) -> View:
    """The page as of `now` (Unix seconds). `policies` (name to type) and `graph` are the configuration's, if known."""
    alive = [worker for worker in observed if worker.now is not None]
    counters = _Counters(alive)
    decided = counters.by("tailrace_traces_decided_total", "verdict")
    read = counters.by("tailrace_spans_read_total", "role"), counters.by("tailrace_logs_read_total", "role")
    spans, logs = (found.get("ingest") or sum(found.values(), Count()) for found in read)
    snapshots = [worker.now for worker in alive if worker.now is not None]
    drops = list(_drops(counters))
    roles = list(_roles(counters, snapshots))
    return View(
        time=now,
        workers=[_worker(worker) for worker in observed],
        roles=roles,
        spans=spans,
        logs=logs,
        kept_spans=counters.sum("tailrace_spans_kept_total"),
        kept_logs=counters.sum("tailrace_logs_kept_total"),
        kept_traces=decided.get("kept", Count()),
        dropped_traces=decided.get("dropped", Count()),
        dead_letters=sum((drop.count for drop in drops if drop.dead_letter), Count()),
        lag=counters.largest("tailrace_head_lag_seconds"),
        without_ingest=_without_ingest(counters, roles),
        window=counters.sum("tailrace_window_bytes").total,
        series=counters.sum("tailrace_series_active").total,
        series_budget=counters.sum("tailrace_series_budget").total,
        delivered=counters.by_two("tailrace_sink_items_total", "sink", "outcome"),
        retries=counters.by_two("tailrace_sink_retries_total", "sink", "reason"),
        drops=drops,
        policies=list(_policies(counters, policies or {})),
        services=charts([snapshot.steps for snapshot in snapshots], now),
        limits=[limit for snapshot in snapshots for limit in snapshot.limits],
        traces=sorted((t for s in snapshots for t in s.traces), key=lambda t: -t.start)[:MOST_TRACES],
        payloads=payloads,
        graph=graph,
    )


def _worker(worker: Observed) -> WorkerView:
    if worker.now is None:
        return WorkerView(worker.name, worker.error, 0, 0)
    counters = _Counters([worker])
    memory, cpu = counters.sum("process_resident_memory_bytes"), counters.sum("process_cpu_seconds_total")
    return WorkerView(worker.name, "", memory.total, cpu.rate)


def _roles(counters: _Counters, snapshots: Sequence[Snapshot]) -> Iterator[RoleView]:
    ready: dict[str, list[float]] = {}
    for snapshot in snapshots:
        for sample in snapshot.samples:
            if sample.name == "tailrace_ready":
                ready.setdefault(sample.labels["role"], []).append(sample.value)
    read = counters.by_two("tailrace_records_read_total", "role", "topic")
    unread = counters.by("tailrace_unread_records", "role")
    stood: dict[str, float] = defaultdict(float)
    for labels, count in counters.each("tailrace_sink_stuck_seconds"):
        name = f"sink.{labels['sink']}"
        stood[name] = max(stood[name], count.total)
    for role, flags in ready.items():
        waiting, stuck = unread.get(role, Count()).total, stood[role]
        stuck = stuck if stuck >= STUCK_SECONDS else 0.0
        yield RoleView(role, all(flags), len(flags), waiting, read.get(role, {}), stuck)


def _without_ingest(counters: _Counters, roles: Sequence[RoleView]) -> bool:
    """With `regroup: never` there may be none: `sample` reads raw topics itself."""
    ingested = {Topics(prefix).spans for prefix in counters.by("tailrace_config_info", "prefix")}
    read = {role.name: ingested & role.read.keys() for role in roles}
    return bool(read.get("sample")) and "ingest" not in read


def _drops(counters: _Counters) -> Iterator[Drop]:
    """What no policy asked for comes first."""
    found = [
        Drop(labels["signal"], labels["reason"], labels["intentional"] == "true", False, count)
        for labels, count in counters.all("tailrace_dropped_total")
    ]
    found += [
        Drop(labels["stage"], labels["reason"], False, True, count)
        for labels, count in counters.all("tailrace_dead_letters_total")
    ]
    return iter(sorted((drop for drop in found if drop.count.total), key=lambda d: (d.intentional, -d.count.total)))


def _policies(counters: _Counters, configured: Mapping[str, str]) -> Iterator[PolicyView]:
    """In the order of the configuration, which is the order in which a kept trace is named."""
    kept = counters.by("tailrace_policy_votes_total", "policy")
    dropped = counters.by("tailrace_policy_drops_total", "policy")
    for name in dict.fromkeys([*configured, *sorted(kept, key=lambda name: -kept[name].total), *dropped]):
        yield PolicyView(name, configured.get(name, ""), kept.get(name, Count()), dropped.get(name, Count()))


class _Counters:
    """Sums over workers."""

    def __init__(self, workers: Sequence[Observed]) -> None:
        self._found: dict[str, list[tuple[dict[str, str], Count]]] = defaultdict(list)
        for worker in workers:
            for sample, count in _counted(worker):
                self._found[sample.name].append((sample.labels, count))

    def each(self, name: str) -> list[tuple[dict[str, str], Count]]:
        """Every label set, once for each worker."""
        return self._found[name]

    def all(self, name: str) -> list[tuple[dict[str, str], Count]]:
        """Every label set, once."""
        merged: dict[tuple[tuple[str, str], ...], Count] = {}
        for labels, count in self._found[name]:
            key = tuple(sorted(labels.items()))
            merged[key] = merged.get(key, Count()) + count
        return [(dict(key), count) for key, count in merged.items()]

    def sum(self, name: str) -> Count:
        return sum((count for _, count in self._found[name]), Count())

    def largest(self, name: str) -> float:
        return max((count.total for _, count in self._found[name]), default=0.0)

    def by(self, name: str, label: str) -> dict[str, Count]:
        return self._grouped(name, lambda labels: labels[label])

    def by_two(self, name: str, first: str, second: str) -> dict[str, dict[str, Count]]:
        found: dict[str, dict[str, Count]] = {}
        for labels, count in self.all(name):
            inner = found.setdefault(labels[first], {})
            inner[labels[second]] = inner.get(labels[second], Count()) + count
        return found

    def _grouped(self, name: str, key: Callable[[dict[str, str]], str]) -> dict[str, Count]:
        found: dict[str, Count] = {}
        for labels, count in self._found[name]:
            found[key(labels)] = found.get(key(labels), Count()) + count
        return found


def _counted(worker: Observed) -> Iterator[tuple[Sample, Count]]:
    before, now = worker.before, worker.now
    assert now is not None
    past = {} if before is None else {_key(sample): sample.value for sample in before.samples}
    seconds = 0.0 if before is None else now.time - before.time
    for sample in now.samples:
        grown = sample.value - past.get(_key(sample), 0.0)
        if grown < 0:  # it has started anew meanwhile
            grown = sample.value
        yield sample, Count(sample.value, grown / seconds if seconds > 0 else 0.0)


def _key(sample: Sample) -> tuple[str, ...]:
    return sample.name, *(text for pair in sorted(sample.labels.items()) for text in pair)
