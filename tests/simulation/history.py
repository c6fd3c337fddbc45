"""A deterministic simulation of the pipeline: a seed and a kind are one history, step by step.

The code under test is the real protocol (`processors.sampling.window`, `processors.regroup`, marks). Kafka is simulated
(tests/simulation/kafka.py), and a seeded scheduler lets producers, ingest and sample owners act in any order. Between
any two effects an owner may crash with its transaction left open, be replaced while it still runs (a zombie), go on
with a transaction after somebody took over, or stand still longer than `decision_wait`. Retention deletes what has been
passed. `verify` compares what was forwarded with what was produced, and every verdict with the oracle's.

What else there is a `Kind` says. Odd seeds are decided soon after their root, and two policies limit rates: deadlines
that move and state that lives on.

Every trace and every step draws from numbers of its own, so a history can be cut down to a `Part` that still fails
(tests/simulation/minimise.py).
"""

from __future__ import annotations

import contextlib
import random
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import partial

from opentelemetry.proto.logs.v1.logs_pb2 import LogsData
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status, TracesData

from pipeline.kafka.pace import BurstSize
from processors.sampling.compile import compile_policies
from processors.sampling.policies import Policy
from processors.sampling.window import Settings
from schemas.decision import RESTORED, DecisionRecord, Verdict
from schemas.envelope import Envelope
from schemas.errors import ProtocolError
from schemas.ids import trace_key
from schemas.point import PointBatch
from schemas.raw_offset import RawOffset
from tests.schemas.rows import scan_span
from tests.simulation import oracle, releases
from tests.simulation.downstream import Aggregate, Destination, Sink, check_ticks, ticks_of
from tests.simulation.groups import SESSION
from tests.simulation.kafka import Fenced, Fetched, Offsets, OutOfRange, Place, SimulatedKafka
from tests.simulation.oracle import Row, Rules
from tests.simulation.owners import (
    DECISIONS,
    KEPT_LOGS,
    KEPT_SPANS,
    LOGS,
    POINTS,
    RAW,
    SAMPLES,
    SPANS,
    Direct,
    Ingest,
    Sample,
)
from tests.simulation.releases import ROLLING, THIS, Release
from tests.simulation.resizing import Resizing
from tests.simulation.workers import Anybody, Members, Owner, Slot

PARTITIONS = 2
SIZES = (1, 2, 3)  # N that a resize may ask for
WAIT = 2_000  # ms
HORIZON = 20_000
ROOT_WAITS = (150, 600)
RATES = {"some": (1, 6, 1), "large": (1, 5, 3)}  # policy: spans per second, burst, fewest spans
TRIES = 20_000  # ms that all is well, for transactions that are tried again a second later and half as large
CLOCK_STEP = 60_000
START = 1_700_000_000_000
GROWTH = START + 6_000
ERROR_LOG = 17
INFO_LOG = 9

TRANSACTION_TIMEOUT = 10_000  # ms
TRACES = 14
MANY_TRACES = 70
STEPS = 500
LOST = 0.05  # of the answers to commits; as many transactions are aborted and tried again, or left open
DISTURBED = 0.06  # of all steps
LOADS, LOADING = 0.01, 3_000  # of all steps, and for how long (ms)


@dataclass(frozen=True, repr=False)
class Kind:
    """What a history has beside ingest, sample and their faults.

    - `whole`: aggregate and sinks (tests/simulation/downstream.py).
    - `sessions`: consumer groups with workers that join, leave, sleep and end; without, owners change one by one.
    - `resizes`: N changes, twice. No rates then: each partition has a share of them.
    - `mixed`: workers of two releases at a time, three upgrades and a downgrade.
    - `hasty`: silent raw partitions are left out after seconds, and the broker's clock is set by minutes either way:
      decisions may then be made on half the evidence, but everything else holds.
    - `direct`: no ingest; the owners read raw topics that are keyed by trace, as pipeline.direct does.
    - `alone`: with `direct`, one owner reads all partitions of the raw topics, wherever the rows of a trace are.
    - `grows`: the raw topic of spans has one partition at first, then more.
    - `narrow`: many traces; a transaction of `sample` with more than some bytes times out, and its bursts are cut at
      any record.
    - `loads`: the broker that tells ingest's offsets loads them now and then, and tells old ones meanwhile (M21).
    - `restores`: owners bring dropped traces back, as pipeline.operating.restore has it: at will, or for late errors.
    """

    whole: bool = False
    sessions: bool = False
    resizes: bool = False
    mixed: bool = False
    hasty: bool = False
    direct: bool = False
    alone: bool = False
    grows: bool = False
    narrow: bool = False
    loads: bool = False
    restores: bool = False

    @property
    def traces(self) -> int:
        """How many there are."""
        return MANY_TRACES if self.narrow else TRACES

    @property
    def steps(self) -> int:
        """How many there are."""
        return STEPS * (1 + self.whole)

    def __repr__(self) -> str:
        return f"Kind({', '.join(f'{one.name}=True' for one in fields(self) if getattr(self, one.name))})"


KINDS = (
    Kind(whole=True, sessions=True),
    Kind(whole=True, loads=True),
    Kind(sessions=True, resizes=True),
    Kind(whole=True, mixed=True),
    Kind(direct=True),
    Kind(whole=True, sessions=True, resizes=True, mixed=True),
    Kind(resizes=True, loads=True),
    Kind(sessions=True, hasty=True),
    Kind(restores=True),
    Kind(whole=True, hasty=True),
    Kind(whole=True, sessions=True),
    Kind(sessions=True, direct=True),
    Kind(direct=True, restores=True),
    Kind(direct=True, alone=True, grows=True),
    Kind(whole=True, sessions=True, direct=True, alone=True),
    Kind(direct=True, alone=True, restores=True),
)


def kind_of(seed: int) -> Kind:
    """The kinds in turn, each with an even and an odd seed."""
    return KINDS[seed // 2 % len(KINDS)]


@dataclass(frozen=True)
class Part:
    """What is left of a history: numbers of traces and steps, and of the steps in which something may go wrong.

    None: all of them.
    """

    traces: tuple[int, ...] | None = None
    steps: tuple[int, ...] | None = None
    faults: tuple[int, ...] | None = None


def placed(trace_id: bytes) -> int:
    """Where a producer puts a trace that keys by it: some hash, which is not that of Tailrace."""
    return zlib.crc32(trace_id) % PARTITIONS


class Crashed(Fenced):
    """Somebody ended in the middle of a transaction."""


class Broker(SimulatedKafka):
    """The simulated Kafka, and owners that may end, stop or try again between any two effects of a transaction."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__(START)
        self.rng = rng
        self.lost = 0.0  # how many transactions are left open, of which one in two goes on later; how many are aborted
        self.stopped: list[Callable[[], object]] = []

    def commit(
        self,
        transactional_id: str,
        epoch: int,
        outputs: list[tuple[Place, bytes]],
        offsets: Callable[[list[int]], Offsets],
    ) -> list[int]:
        """One transaction; raises Fenced. Sometimes an earlier try was aborted. `offsets`, given where outputs are."""
        written: list[int] = []
        effects: list[Callable[[], None]] = [
            lambda place=place, value=value: written.append(self.send(transactional_id, epoch, place, value))  # type: ignore[misc]
            for place, value in outputs
        ]
        if self.rng.random() < self.lost:
            for effect in effects:
                effect()
            self.end(transactional_id, epoch, commit=False)
            written.clear()
        effects.append(lambda: self.send_offsets(transactional_id, epoch, offsets(written)))
        effects.append(lambda: self.end(transactional_id, epoch, commit=True))
        done = self.rng.randrange(1, len(effects)) if self.rng.random() < self.lost else len(effects)
        for effect in effects[:done]:
            effect()
        if done < len(effects):
            self.stopped.append(lambda: [effect() for effect in effects[done:]])
            raise Crashed
        return written


@dataclass
class TraceTruth:
    """What a program made: span ids, log count, and what of it counts for the decision."""

    trace_id: bytes
    spans: list[bytes] = field(default_factory=list)
    logs: Counter[int] = field(default_factory=Counter)
    rows: list[Row] = field(default_factory=list)


def _policies(rates: Mapping[str, tuple[int, int, int]]) -> list[Policy]:
    """Errors of spans and logs, and one for each rate."""
    policies = [
        Policy.model_validate({"name": "errors", "type": "status_code", "status_code": {"status_codes": ["ERROR"]}}),
        Policy.model_validate(
            {"name": "error-logs", "type": "log_severity", "log_severity": {"min_severity": "ERROR"}}
        ),
    ]
    for name, (rate, burst, fewest) in rates.items():
        large = {"name": "large", "type": "span_count", "span_count": {"min_spans": fewest}}
        limit = {"spans_per_second": rate, "burst_capacity": burst}
        limited = {"name": "rate", "type": "rate_limiting", "rate_limiting": limit}
        parts = {"and_sub_policy": [large, limited]}
        policies.append(Policy.model_validate({"name": name, "type": "and", "and": parts}))
    return policies


class Simulation:
    """One history."""

    def __init__(self, seed: int, kind: Kind | None = None, part: Part | None = None) -> None:
        self.seed, self.kind, self.part = seed, kind or Kind(), part or Part()
        self.rng = random.Random(seed)
        self.broker = Broker(self.rng)
        kind, eager = self.kind, seed % 2 == 1
        self.steps = kind.steps
        topics = ("raw_spans", "raw_logs") if kind.direct else (SPANS, LOGS)
        self.partitions = 1 if kind.alone else PARTITIONS
        self.restores = kind.restores
        self.rules = Rules(WAIT, self.rng.choice(ROOT_WAITS) if eager else None, self.partitions)
        if eager and not kind.resizes:
            self.rules.rates = RATES
        if kind.direct and not kind.alone:
            self.rules.placed = placed
        self.plan = compile_policies(_policies(self.rules.rates), extra_keys=["service.name"])
        self.settings = Settings(
            self.partitions,
            *topics,
            WAIT,
            HORIZON + 3 * CLOCK_STEP * kind.hasty,
            cache_bytes=self.rng.choice((0, 400, 2_000, 1 << 20)),
            burst_bytes=self.rng.choice((300, 1 << 20)),
            stall_limits={"raw_logs": WAIT if kind.hasty else 10 * 60_000},
            ingest_stall_limit=2 * WAIT if kind.hasty else 10 * 60_000,
            wait_after_root=self.rules.after_root,
            direct=kind.direct,
            late_evidence=ERROR_LOG if kind.restores else None,
            raw_partitions=({**RAW, "raw_spans": 1} if kind.grows else RAW) if kind.alone else {},
        )
        self.feeds = self.settings.feeds
        self.backlog = self.rng.random() < 0.3  # a cold start: everything is there before the first owner
        self.resize_at = {self.rng.randrange(self.steps): self.rng.choice(SIZES) for _ in range(2 * kind.resizes)}
        self.sizes: dict[str, BurstSize] = {}  # of transactions of sample, as a worker knows them
        self.timed_out = 0  # transactions that were too large
        self.resized = 0
        self.era = 0  # of releases and N: who is of an earlier one may read what it does not understand, and ends
        self.answers_lost = 0.0
        self.faults = True  # of the destination: not when all is to be well
        self.disturbed = False
        self.story: list[str] = []
        self.by_evidence = 0  # restores that late errors set off
        self.quiet_at = 0
        self.quiet_for = 5 * WAIT + 2 * CLOCK_STEP * kind.hasty + 3 * SESSION * kind.sessions + TRIES * kind.narrow
        self.truth: dict[int, TraceTruth] = {}
        traces = range(kind.traces) if self.part.traces is None else self.part.traces
        self.events = sorted((event for n in traces for event in self._program(n)), key=lambda event: event[0])
        self.releases: tuple[Release, ...] = ROLLING[0] if kind.mixed else (THIS,)
        self.resizing: Resizing | None = None
        self.destination = Destination()
        self.slots = self._slots()
        self.owning = Members(self) if kind.sessions else Anybody(self)

    def _slots(self) -> dict[Slot, Callable[[], Owner]]:
        """What there is to own with the N in force, and who is made for it."""
        slots: dict[Slot, Callable[[], Owner]] = {}
        for topic, count in RAW.items() if not self.kind.direct else ():
            for number in range(count):
                slots[Slot("ingest", (topic, number))] = partial(Ingest, self, (topic, number))
        owner = Direct if self.kind.direct else Sample
        for index in range(self.partitions):
            slots[Slot("sample", (self.feeds[0], index))] = partial(owner, self, index)
        if self.kind.whole:
            for topic in (KEPT_SPANS, KEPT_LOGS):
                for index in range(max(SIZES) if self.kind.resizes else PARTITIONS):
                    slots[Slot("sink", (topic, index))] = partial(Sink, self, (topic, index), self.destination)
            slots[Slot("aggregate", (POINTS, 0))] = partial(Aggregate, self, (POINTS, 0), (SAMPLES, 0))
        return slots

    @property
    def running(self) -> list[Slot]:
        """Slots whose role is not stopped."""
        stopped = ("ingest", "sample") if self.resizing else ()
        return [slot for slot in self.slots if slot.role not in stopped]

    @property
    def roles(self) -> list[str]:
        """Roles that are not stopped."""
        return list(dict.fromkeys(slot.role for slot in self.running))

    def topics_of(self, role: str) -> Mapping[str, int]:
        """What the group of a role reads: topics and their partitions."""
        return Counter(slot.place[0] for slot in self.slots if slot.role == role)

    def release(self) -> Release:
        """Of a worker that starts now."""
        return self.rng.choice(self.releases) if len(self.releases) > 1 else self.releases[0]

    def _program(self, number: int) -> list[tuple[int, Place, bytes]]:
        """The spans and logs of a trace: when, where, and what."""
        rng, events = random.Random(f"{self.seed} {number}"), []
        trace_id = rng.randbytes(16)
        first = START + rng.randrange(0, 12_000)
        truth = self.truth[trace_key(trace_id)] = TraceTruth(trace_id)
        fails = rng.random()
        count = rng.randint(1, 6)
        roots = {rng.randrange(count)} if rng.random() < 0.8 else set(range(0, count, rng.randint(2, 6)))
        for index in range(count):
            late = fails >= 0.4 and rng.random() < 0.1
            at = first + (rng.randrange(0, 1_500) if not late else rng.randrange(WAIT, HORIZON // 2)) * (index > 0)
            failed = (fails < 0.2 and index == 0) or (self.kind.restores and late and fails >= 0.7)
            span = Span(trace_id=trace_id, span_id=rng.randbytes(8), name=f"op{number}")
            span.start_time_unix_nano, span.end_time_unix_nano = at * 10**6, (at + 5) * 10**6
            if index not in roots:
                span.parent_span_id = b"upstream"
            if failed:
                span.status.code = Status.STATUS_CODE_ERROR
            truth.rows.append(Row(at, True, failed, index in roots))
            truth.spans.append(span.span_id)
            data = TracesData()
            data.resource_spans.add().scope_spans.add().spans.append(span)
            place = placed(trace_id) if self.rules.placed else rng.randrange(RAW["raw_spans"])
            place *= not self.kind.grows or at >= GROWTH
            events.append((at, ("raw_spans", place), data.SerializeToString()))
        for _ in range(rng.randint(0, 2)):
            at = first + rng.randrange(0, 1_500)
            severity = ERROR_LOG if 0.2 <= fails < 0.4 and rng.random() < 0.7 else INFO_LOG
            truth.rows.append(Row(at, False, severity == ERROR_LOG))
            truth.logs[severity] += 1
            logs = LogsData()
            logs.resource_logs.add().scope_logs.add().log_records.add(
                trace_id=trace_id, severity_number=severity, time_unix_nano=at * 10**6
            )
            place = placed(trace_id) if self.rules.placed else 0
            events.append((at, ("raw_logs", place), logs.SerializeToString()))
        return events

    # ---- running -----------------------------------------------------------------------------------------

    def run(self) -> Simulation:
        """The whole history, or its part: faults first, then quiet until everything is decided and forwarded."""
        with releases.next_is_read() if self.kind.mixed else contextlib.nullcontext():
            if self.backlog:
                self._advance(60_000)
            for step in range(self.steps) if self.part.steps is None else self.part.steps:
                self._step(step)
            self._settle()
        return self

    def tell(self, text: str) -> None:
        """For people."""
        self.story.append(f"{self.broker.now - START:>6} ms  {text}")

    def _step(self, step: int) -> None:
        self.rng.seed(self.seed << 16 | step)
        self.disturbed = self.part.faults is None or step in self.part.faults
        self.broker.lost = self.answers_lost = LOST * self.disturbed
        self._advance(self.rng.choice((1, 20, 100, 300)))
        if self.kind.mixed:
            self._roll(ROLLING[step * len(ROLLING) // self.steps])
        if step in self.resize_at and self.resizing is None:
            self.tell(f"a resize to {self.resize_at[step]} begins")
            self.resizing = Resizing(self, self.resize_at[step])
        if self.resizing is not None:
            self._resize()
        if self.disturbed:
            self._disturb()
        if self.running:
            self.owning.act()
        self.interrupt()
        self.wake()

    def _roll(self, both: tuple[Release, ...]) -> None:
        """The next release comes, once nobody runs the one before it any more."""
        if both is not self.releases:
            self.tell(f"{both[1].name} comes beside {both[0].name}")
            self.releases = both
            self.owning.replace(both)
            self.era += 1

    def _advance(self, ms: int) -> None:
        broker = self.broker
        broker.now += ms
        if self.kind.grows and broker.now >= GROWTH and self.settings.raw_partitions != RAW:
            self._grow()
        self._produce(broker.now)
        for transactional_id, since in list(broker.opened.items()):
            if broker.now - since > TRANSACTION_TIMEOUT:
                broker.time_out(transactional_id)
        self.owning.expire()

    def _grow(self) -> None:
        """The raw topic of spans has all its partitions from now on, and whoever comes next reads them."""
        self.tell("partitions are added")
        self.settings = replace(self.settings, raw_partitions=RAW)
        self.feeds = self.settings.feeds
        lost, self.broker.lost = self.broker.lost, 0.0
        answers, self.answers_lost = self.answers_lost, 0.0
        self.owning.stop("sample")
        for slot, _ in self.owning.everybody():
            self.tell(f"{slot}: knows of them")
        self.broker.lost, self.answers_lost = lost, answers

    def interrupt(self) -> None:
        """Between two effects of somebody: who stopped in the middle of a transaction may go on with it."""
        if self.disturbed and self.broker.stopped and self.rng.random() < 0.3:
            self.tell("who was stopped in a transaction goes on")
            with contextlib.suppress(Fenced):
                self.broker.stopped.pop(self.rng.randrange(len(self.broker.stopped)))()

    def wake(self) -> None:
        """Between two effects of somebody: a zombie acts."""
        if self.disturbed:
            self.owning.wake()

    def crash_here(self, who: str) -> None:
        """Between two effects of a long transaction. Raises Crashed."""
        if self.rng.random() < self.broker.lost / 10:
            raise Crashed(who)

    def _produce(self, until: int) -> None:
        while self.events and self.events[0][0] <= until:
            at, place, value = self.events.pop(0)
            self.broker.append(place, value, at)

    def read(self, owner: Owner, place: Place, position: int, count: int) -> tuple[list[Fetched], int]:
        """What an owner fetches. Raises ProtocolError if its release does not read that."""
        records, after = self.broker.logs[place].read(position, count)
        if self.kind.mixed and place[0] not in RAW:
            for record in records:
                releases.read(owner.release, record.value)
        return records, after

    def commit(
        self, owner: Owner, outputs: list[tuple[Place, bytes]], offsets: Callable[[list[int]], Offsets]
    ) -> list[int]:
        """One transaction of an owner, as its release writes it. Raises Fenced."""
        if self.kind.mixed:
            outputs = [(place, releases.written(owner.release, value)) for place, value in outputs]
        try:
            return self.broker.commit(owner.id, owner.epoch, outputs, offsets)
        except Crashed:
            self.tell(f"{owner.id} stops in its transaction")
            raise

    def _disturb(self) -> None:
        if self.kind.hasty and self.rng.random() < 0.005:
            step = self.rng.choice((-CLOCK_STEP, CLOCK_STEP))  # and back: a verdict lives through three of them
            self.broker.step += step if abs(self.broker.step + step) <= CLOCK_STEP else -step
            self.tell(f"the broker's clock is {self.broker.step // 1000} s ahead")
        if self.kind.loads and self.rng.random() < LOADS:
            self.broker.load(LOADING)
            self.tell("offsets are loaded")
        if self.rng.random() < DISTURBED:
            self._delete_old()
            if self.running:
                self.owning.disturb()

    def _delete_old(self) -> None:
        """Retention deletes what its readers have passed, and decisions before those that a new owner loads."""
        place = self.rng.choice(list(self.broker.offsets)) if self.broker.offsets else None
        if place is None or self.kind.restores:  # a restore reads all that was ever passed
            return
        offset, pointer = self.broker.offsets[place]
        self.broker.delete_before(place, offset)
        state = DECISIONS if place[0] in self.feeds else SAMPLES if place[0] == POINTS else ""
        if state and pointer:
            self.broker.delete_before((state, 0 if self.kind.alone else place[1]), int(pointer))

    def _resize(self) -> None:
        """Once ingest and sample are stopped; again, or back to the N in force, if it failed."""
        assert self.resizing is not None
        if not self.owning.stop("ingest", "sample"):
            return
        self.era += 1
        try:
            self.resizing.run()
            if self.rng.random() < self.answers_lost:
                raise Crashed("resize")
        except Fenced:
            self.tell("the resize failed")
            self.resizing = Resizing(self, self.resizing.after)
            return
        before, self.partitions, self.resizing = self.partitions, self.resizing.after, None
        self.tell(f"N is {self.partitions}, no more {before}")
        self.settings = replace(self.settings, partitions=self.partitions)
        self.slots = self._slots()
        self.resized += before != self.partitions
        if before != self.partitions and any(place[0] in RAW for place in self.broker.offsets):
            self._start_with(before)

    def in_force(self) -> int | None:
        """N as the offsets of ingest say it."""
        offsets = [self.broker.offsets.get((topic, p), (0, "")) for topic, count in RAW.items() for p in range(count)]
        known = [RawOffset.unpack(metadata).partitions for _, metadata in offsets]
        return next((number for number in known if number is not None), None)

    def newest(self, owner: Owner) -> bool:
        """Whether nobody has come after it."""
        return self.broker.epochs[owner.id] == owner.epoch

    def _start_with(self, before: int) -> None:
        """A worker that slept through a resize begins, with the N before: it must not write anything."""
        now, self.partitions = self.partitions, before
        try:
            worker = Ingest(self, self.rng.choice([slot.place for slot in self.slots if slot.role == "ingest"]))
            for _ in range(5):
                worker.step()
        except (ProtocolError, Fenced) as error:
            self.tell(f"a worker with N = {before} ends: {error}")
        finally:
            self.partitions = now

    def _settle(self) -> None:
        self.rng.seed(self.seed)
        self.faults = self.disturbed = False
        self.answers_lost = self.broker.lost = 0.0
        self.broker.load(0)
        self.tell("all is well from now on")
        self.quiet_for += abs(self.broker.step)  # first marks of a raw partition are of the broker's time
        self.quiet_at = self.broker.now + self.quiet_for
        while self.events or self.resizing or self.broker.now < self.quiet_at:
            self._advance(1_000)
            if self.resizing:
                self._resize()
            if self.events or self.resizing:
                self.quiet_at = self.broker.now + self.quiet_for
            for slot, owner in self.owning.everybody():
                try:
                    self.catch_up(owner)
                except (Fenced, OutOfRange) as error:
                    if isinstance(error, OutOfRange) and self.newest(owner):
                        raise
                    self.owning.lost(slot, owner)
                except ProtocolError:
                    if not self.owning.end_outdated(owner):
                        raise
        assert not self.owning.unowned(), f"nobody, or more than one, has {self.owning.unowned()}"

    def catch_up(self, owner: Owner) -> None:
        """All that it can do now."""
        if isinstance(owner, Ingest):
            while owner.next < self.broker.logs[owner.place].end:
                owner.step()
            owner.commit() if owner.next > owner.committed else None
            owner.mark.ended(owner.clock.now(self.broker.now / 1000))
            owner.commit()
        elif isinstance(owner, Aggregate):
            owner.count(10**6)
            owner.commit(owner.ticks.last(self.broker.now / 1000))
        elif isinstance(owner, Sink):
            owner.read(10**6)
            while owner.busy and owner.confirmed():
                owner.send()
            owner.commit()
        else:
            for feed in self.feeds:
                owner.read(feed, 10**6)
            moved = True
            while moved:
                owner.reread(50)
                moved = owner.burst() or bool(owner.window.held.wanted())

    # ---- the truth ---------------------------------------------------------------------------------------

    def verify(self) -> Counter[str]:
        """Compare outcome and truth; returns what was seen. Raises AssertionError naming the first difference."""
        with releases.next_is_read() if self.kind.mixed else contextlib.nullcontext():
            return self._verified()

    def _verified(self) -> Counter[str]:
        verdicts, right = (
            self.verdicts(),
            oracle.verdicts({t.trace_id: t.rows for t in self.truth.values()}, self.rules),
        )
        spans, logs, counted = self._forwarded()
        seen: Counter[str] = Counter(traces=len(self.truth), counted=counted, evidence=self.by_evidence)
        seen += Counter(resized=self.resized, moved=self.owning.moved)
        for key, truth in self.truth.items():
            if not truth.spans and not truth.logs:
                continue
            assert key in verdicts, f"{key:016x} has no verdict"
            kept = verdicts[key].kept
            seen["kept"] += kept
            seen[verdicts[key].policy] += 1
            seen["early"] += oracle.deadline(truth.rows, self.rules) < min(row.at for row in truth.rows) + WAIT
            policy, expected_policy = verdicts[key].policy, right[key]
            if policy == RESTORED:
                policy = ""  # it was dropped, which must have been right
            assert policy == expected_policy or self.kind.hasty, (
                f"{key:016x}: kept by {policy!r}, not by {expected_policy!r}"
            )
            seen["misjudged"] += policy != expected_policy
            expected = Counter(truth.spans) if kept else Counter()
            assert spans.get(key, Counter()) == expected, f"{key:016x}: spans lost, split or doubled"
            expected_logs = (
                truth.logs if kept else Counter({ERROR_LOG: truth.logs[ERROR_LOG]} if truth.logs[ERROR_LOG] else {})
            )
            assert logs.get(key, Counter()) == expected_logs, f"{key:016x}: logs lost or doubled"
        made = sum(len(t.spans) for t in self.truth.values())
        assert counted == made, "span metrics differ from the spans made"
        if self.kind.whole:
            check_ticks(ticks_of(self.broker.logs[SAMPLES, 0].values()), made)
            self._check_delivered()
            seen["delivered"] = len(self.destination.taken)
            seen["delivered again"] = self.destination.taken.total() - len(self.destination.taken)
        return seen

    def _check_delivered(self) -> None:
        """The destination has every row that was forwarded, and none twice but where an answer or an owner was lost."""
        forwarded = {
            (place, offset, row)
            for place in self.broker.logs
            if place[0] in (KEPT_SPANS, KEPT_LOGS)
            for offset, value in self.broker.logs[place].committed()
            for row in range(len(Envelope.decode(value)))
        }
        assert self.destination.taken.keys() == forwarded, "rows were not delivered, or were never forwarded"
        assert not self.destination.unexplained.total(), "rows were delivered twice by an owner that could know"

    def verdicts(self) -> dict[int, Verdict]:
        """The one verdict of every trace, or the one that superseded a drop; any other second one is an error."""
        found: dict[int, Verdict] = {}
        for place in [place for place in self.broker.logs if place[0] == DECISIONS]:
            for value in self.broker.logs[place].values():
                record = DecisionRecord.decode(value)
                for key, verdict in zip(record.keys, record.verdicts, strict=True):
                    if verdict.policy == RESTORED and key in record.restored and not found[key].kept:
                        found[key] = verdict
                    assert found.setdefault(key, verdict) == verdict, f"{key:016x} has two verdicts"
        return found

    def _forwarded(self) -> tuple[dict[int, Counter[bytes]], dict[int, Counter[int]], int]:
        spans: dict[int, Counter[bytes]] = defaultdict(Counter)
        logs: dict[int, Counter[int]] = defaultdict(Counter)
        for topic in (KEPT_SPANS, KEPT_LOGS):
            for place in [place for place in self.broker.logs if place[0] == topic]:
                for value in self.broker.logs[place].values():
                    envelope = Envelope.decode(value)
                    for row, key in enumerate(envelope.keys):
                        data = envelope.row(row)
                        if topic == KEPT_SPANS:
                            spans[key][scan_span(data, 0, len(data), {}).span_id] += 1
                        else:
                            record = LogsData()
                            record.resource_logs.add().scope_logs.add().log_records.add().ParseFromString(data)
                            logs[key][record.resource_logs[0].scope_logs[0].log_records[0].severity_number] += 1
        counted = 0
        for value in self.broker.logs[POINTS, 0].values():
            batch = PointBatch.decode(value)
            if batch.shape.kind == "counter":
                counted += sum(number for _, number in batch.rows)  # type: ignore[misc]
        return spans, logs, counted
