"""A deterministic simulation of ingest and sample: one seed is one history.

The code under test is the real protocol (`processors.sampling.window`, `processors.regroup`, marks). Kafka is simulated
(tests/simulation/kafka.py), and a seeded scheduler lets producers, ingest and sample owners act in any order. Between
any two effects an owner may crash with its transaction left open, be replaced while it still runs (a zombie), go on
with a transaction after somebody took over, or stand still longer than `decision_wait`. Retention deletes what has been
passed. `verify` compares what was forwarded with what was produced, and every verdict with the oracle's.

With `whole` aggregate and sinks are there too (tests/simulation/downstream.py).

With `direct` there is no ingest: the owners read raw topics that are keyed by trace, as pipeline.direct does.

With `narrow` a transaction of `sample` with more bytes than that times out, and its bursts are cut at any record.

With `restores` owners bring dropped traces back, as pipeline.restore does: some at will, and those of late errors.

Odd seeds are decided soon after their root, and two policies limit rates: deadlines that move and state that lives on.
"""

from __future__ import annotations

import contextlib
import random
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from opentelemetry.proto.logs.v1.logs_pb2 import LogsData
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status, TracesData

from pipeline.pace import BurstSize
from processors.regroup import Regroup
from processors.sampling.compile import compile_policies
from processors.sampling.policies import Policy
from processors.sampling.restore import Restoration
from processors.sampling.window import Settings, Window
from processors.span_metrics import SpanMetrics
from processors.stream_time import BrokerClock, RawMark
from schemas.decision import RESTORED, DecisionRecord, Verdict
from schemas.envelope import Envelope
from schemas.ids import trace_key
from schemas.point import PointBatch
from schemas.raw_batch import RawReader
from tests.processors.sampling import oracle
from tests.processors.sampling.oracle import Row, Rules
from tests.schemas.rows import scan_span
from tests.simulation.downstream import Aggregate, Destination, Sink, check_ticks, ticks_of
from tests.simulation.kafka import Fenced, Fetched, Offsets, OutOfRange, Place, SimulatedKafka

PARTITIONS = 2
RAW = {"raw_spans": 2, "raw_logs": 1}
SPANS, LOGS, DECISIONS = "spans", "logs", "decisions"
KEPT_SPANS, KEPT_LOGS, POINTS, SAMPLES = "kept.spans", "kept.logs", "points", "samples"
WAIT = 2_000  # ms
HORIZON = 20_000
ROOT_WAITS = (150, 600)
RATES = {"some": (1, 6, 1), "large": (1, 5, 3)}  # policy: spans per second, burst, fewest spans
CLOCK_STEP = 60_000
RESTORES = 0.1  # of an owner's steps
WIDE = 1 << 14  # bytes of a transaction, before anything times out
START = 1_700_000_000_000
ERROR_LOG = 17
INFO_LOG = 9

TRANSACTION_TIMEOUT = 10_000  # ms


def placed(trace_id: bytes) -> int:
    """Where a producer puts a trace that keys by it: some hash, which is not that of Tailrace."""
    return zlib.crc32(trace_id) % PARTITIONS


class Crashed(Fenced):
    """The owner ended in the middle of a transaction."""


class Broker(SimulatedKafka):
    """The simulated Kafka, and owners that may end, stop or try again between any two effects of a transaction."""

    def __init__(self, rng: random.Random) -> None:
        super().__init__(START)
        self.rng = rng
        self.torn = 0.0  # how many transactions are left open; of these one in two goes on later
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
        if self.rng.random() < 0.05:
            for effect in effects:
                effect()
            self.end(transactional_id, epoch, commit=False)
            written.clear()
        effects.append(lambda: self.send_offsets(transactional_id, epoch, offsets(written)))
        effects.append(lambda: self.end(transactional_id, epoch, commit=True))
        done = self.rng.randrange(1, len(effects)) if self.rng.random() < self.torn else len(effects)
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


class Ingest:
    """The owner of one raw partition, as pipeline.ingest does it."""

    def __init__(self, sim: Simulation, place: Place) -> None:
        self.sim, self.place = sim, place
        self.id = f"ingest.{place[0]}.{place[1]}"
        broker = sim.broker
        self.epoch = broker.init(self.id)
        sim.interrupt()
        self.next, metadata = broker.offsets.get(place, (0, ""))
        self.committed = self.next
        self.mark = RawMark(int(metadata) if metadata else None)
        self.clock = BrokerClock()
        signal = "traces" if place[0] == "raw_spans" else "logs"
        self.target = SPANS if signal == "traces" else LOGS
        self.regroup = Regroup(*place, signal, "otlp_proto", PARTITIONS, 1 << 20, 1 << 20)

    def step(self) -> None:
        """Read a little, or commit, or mark."""
        broker, rng = self.sim.broker, self.sim.rng
        choice = rng.random()
        if choice < 0.6:
            for offset, append, value in broker.logs[self.place].read(self.next, rng.randint(1, 4))[0]:
                self.regroup.add(offset, append, value)
                self.mark.read(append)
                self.next = offset + 1
        elif self.next > self.committed:
            self.commit()
        else:
            before = self.clock.now(broker.now / 1000)
            if self.next >= broker.logs[self.place].end:
                self.mark.ended(before)
            self.commit()

    def commit(self) -> None:
        broker = self.sim.broker
        mark = self.mark.cut(self.clock.now(broker.now / 1000))
        flushed = self.regroup.flush(mark, RAW)
        outputs = [((self.target, p), value) for p, values in flushed.envelopes.items() for value in values]
        offsets = {self.place: (self.next, "" if mark is None else str(mark))}
        broker.commit(self.id, self.epoch, outputs, lambda _: offsets)
        self.clock.observe(max(broker.now + broker.step, mark or 0), broker.now / 1000)
        self.committed = self.next


class Sample:
    """The owner of partition i of spans and logs, as pipeline.sample does it."""

    def __init__(self, sim: Simulation, index: int) -> None:
        self.sim, self.index, self.topics = sim, index, sim.topics
        self.id = f"sample.{index}"
        broker, plan = sim.broker, sim.plan
        self.window = Window(index, sim.settings, plan, SpanMetrics("traces", [], [100.0], plan.keys))
        if sim.narrow is not None and self.id in sim.sizes:
            self.window.limit = sim.sizes[self.id].bytes
        committed = self.take_over()
        pointer = next((found[1] for found in committed.values() if found and found[1]), "")
        log = broker.logs[DECISIONS, index]
        for offset, _, value in log.read(int(pointer or log.start), log.end)[0]:
            self.window.load(offset, value)
        starts = {topic: broker.logs[topic, index].start for topic in self.topics}
        self.window.resume({t: found[0] if found else None for t, found in committed.items()}, starts)
        self.restoring: Restoration | None = None
        self.late: list[int] = []  # traces that late errors speak for, whose drop is in the log

    def take_over(self) -> dict[str, tuple[int, str] | None]:
        """Fence the predecessor, then ask for the offsets (F8)."""
        self.epoch = self.sim.broker.init(self.id)
        self.sim.interrupt()
        return {topic: self.sim.broker.offsets.get((topic, self.index)) for topic in self.topics}

    def step(self) -> None:
        """Read a head, or let the tail catch up, or burst."""
        rng = self.sim.rng
        if self.sim.restores and rng.random() < RESTORES:
            self.restore(rng.randint(1, 9))
            return
        choice = rng.random()
        if choice < 0.6:
            topic = rng.choice(self.topics)
            self.read(topic, rng.randint(1, 6))
        elif choice < 0.75:
            self.reread(rng.randint(1, 5))
        else:
            self.burst()

    def read(self, topic: str, count: int) -> None:
        log, before = self.sim.broker.logs[topic, self.index], self.before()
        records, after = log.read(self.window.positions()[topic], count)
        self.feed(topic, records)
        if after >= log.end:
            self.window.ended(topic, before)

    def before(self) -> int:
        """What counts as read when the end of a topic is found."""
        return self.window.newest_append

    def feed(self, topic: str, records: list[Fetched]) -> None:
        for record in records:
            self.window.head(topic, *record)

    def reread(self, count: int) -> None:
        for topic, position in self.window.wanted().items():
            head = self.window.positions()[topic]
            records, after = self.sim.broker.logs[topic, self.index].read(position, count)
            self.feed_again(topic, [r for r in records if r[0] < head], min(after, head))

    def feed_again(self, topic: str, records: list[Fetched], position: int) -> None:
        self.window.reread(topic, records, position)

    def restore(self, count: int) -> None:
        """Begin to bring a dropped trace back, read a little more for it, or hand it over."""
        if self.restoring is None:
            log = self.sim.broker.logs[DECISIONS, self.index]
            decided = [DecisionRecord.decode(value) for _, _, value in log.read(0, log.end)[0]]
            dropped = {k for r in decided for k, v in zip(r.keys, r.verdicts, strict=True) if not v.kept}
            for record in decided:
                dropped -= record.restored.keys()
            if not dropped:
                return
            late = [key for key in self.late if key in dropped]
            self.late.clear()
            key = late[0] if late else self.sim.rng.choice(sorted(dropped))
            self.sim.by_evidence += bool(late)
            heads = next(record.checkpoint.counted for record in decided if key in record.keys)
            self.restoring = Restoration(key, "seen again", dict.fromkeys(self.topics, 0), heads, PARTITIONS)
        found = self.restoring
        for topic, (position, tail) in found.behind(self.window.tails()).items():
            records, after = self.sim.broker.logs[topic, self.index].read(position, count)
            for value in self.values(topic, [record for record in records if record[0] < tail]):
                found.add(topic, value)
            found.positions[topic] = min(after, tail)
        if not found.behind(self.window.tails()):
            self.window.restore(found)
            self.restoring = None

    def values(self, topic: str, records: list[Fetched]) -> list[Envelope]:
        """These records as envelopes."""
        return [Envelope.decode(value) for _, _, value in records]

    def burst(self, always: bool = False) -> None:
        late, self.window.late_errors = self.window.late_errors, {}
        self.late += late
        size, narrow = self.sim.sizes.setdefault(self.id, BurstSize(WIDE)), self.sim.narrow
        if narrow is None:
            burst = self.window.burst(always=always)
        else:
            self.window.limit = size.bytes
            burst = self.window.burst(always=always, is_long=lambda: self.sim.rng.random() < 0.2)
        if burst is None:
            return
        index = self.index
        outputs = [((DECISIONS, index), burst.decisions)]
        outputs += [((KEPT_SPANS, index), value) for value in burst.kept_spans]
        outputs += [((KEPT_LOGS, index), value) for value in burst.kept_logs]
        outputs += [((POINTS, 0), points.encode()) for points in burst.points]
        pointer = "" if burst.load_from is None else str(burst.load_from)
        offsets = {(topic, index): (offset, pointer) for topic, offset in burst.tails.items()}
        if narrow is not None and sum(len(value) for _, value in outputs) > narrow:
            self.sim.timed_out += 1
            size.failed()
            raise Fenced
        written = self.sim.broker.commit(self.id, self.epoch, outputs, lambda _: offsets)
        size.took(0.0, burst.more)
        if self.sim.rng.random() > self.sim.crash_after_commit:
            self.window.committed(written[0])
            self.appended(self.sim.broker.now + self.sim.broker.step)
        else:
            raise Fenced  # the answer is lost: the owner has to drop everything and take over again

    def appended(self, time_ms: int) -> None:
        """A transaction was acknowledged."""


class Direct(Sample):
    """The owner of partition i of the raw topics, as pipeline.direct does it."""

    def __init__(self, sim: Simulation, index: int) -> None:
        super().__init__(sim, index)
        self.clock = BrokerClock()
        self.readers = {
            topic: RawReader(topic, index, PARTITIONS, signal, 1 << 20, 1 << 20)
            for topic, signal in zip(self.topics, ("traces", "logs"), strict=True)
        }
        self.burst(always=True)

    def appended(self, time_ms: int) -> None:
        marks = [mark for mark, _ in self.window.marks().values()]
        self.clock.observe(max([time_ms, *marks]), self.sim.broker.now / 1000)

    def before(self) -> int:
        now = self.clock.now(self.sim.broker.now / 1000)
        assert now is not None
        return now

    def feed(self, topic: str, records: list[Fetched]) -> None:
        counted = self.window.uncounted(topic)
        for part in ([r for r in records if r[0] < counted], [r for r in records if r[0] >= counted]):
            if part:
                self.window.head(topic, part[0][0], self.before(), self.readers[topic].read(part))

    def values(self, topic: str, records: list[Fetched]) -> list[Envelope]:
        return [self.readers[topic].read(records).rows] if records else []

    def feed_again(self, topic: str, records: list[Fetched], position: int) -> None:
        batches = [(records[0][0], self.before(), self.readers[topic].read(records))] if records else []
        self.window.reread(topic, batches, position)


Owner = Ingest | Sample | Aggregate | Sink


class Simulation:
    """One history. `faults` False makes a quiet one; odd seeds are `eager`: a wait after the root, limits of rates.

    `hasty` ones leave silent raw partitions out after seconds, and the broker's clock is set by minutes either way:
    decisions may then be made on half the evidence, but everything else holds.
    """

    def __init__(
        self,
        seed: int,
        faults: bool = True,
        traces: int = 14,
        steps: int = 500,
        hasty: bool = False,
        direct: bool = False,
        restores: bool = False,
        whole: bool = False,
        narrow: int | None = None,
    ) -> None:
        self.rng = random.Random(seed)
        self.broker = Broker(self.rng)
        self.faults, self.steps, self.hasty, self.direct = faults, steps, hasty, direct
        self.restores, self.whole, self.narrow = restores, whole, narrow
        self.sizes: dict[str, BurstSize] = {}
        self.timed_out = 0
        self.topics = ("raw_spans", "raw_logs") if direct else (SPANS, LOGS)
        self.crash_after_commit = self.broker.torn = 0.05 if faults else 0.0
        policies = [
            Policy.model_validate(
                {"name": "errors", "type": "status_code", "status_code": {"status_codes": ["ERROR"]}}
            ),
            Policy.model_validate(
                {"name": "error-logs", "type": "log_severity", "log_severity": {"min_severity": "ERROR"}}
            ),
        ]
        eager = seed % 2 == 1
        self.rules = (
            Rules(WAIT, self.rng.choice(ROOT_WAITS), PARTITIONS, RATES) if eager else Rules(WAIT, None, PARTITIONS)
        )
        if direct:
            self.rules = replace(self.rules, placed=placed)
        for name, (rate, burst, fewest) in self.rules.rates.items():
            large = {"name": "large", "type": "span_count", "span_count": {"min_spans": fewest}}
            limit = {"spans_per_second": rate, "burst_capacity": burst}
            limited = {"name": "rate", "type": "rate_limiting", "rate_limiting": limit}
            parts = {"and_sub_policy": [large, limited]}
            policies.append(Policy.model_validate({"name": name, "type": "and", "and": parts}))
        self.plan = compile_policies(policies, extra_keys=["service.name"])
        self.settings = Settings(
            PARTITIONS,
            *self.topics,
            WAIT,
            HORIZON + 3 * CLOCK_STEP * hasty,
            cache_bytes=self.rng.choice((0, 400, 2_000, 1 << 20)),
            burst_bytes=self.rng.choice((300, 1 << 20)),
            stall_limits={"raw_logs": WAIT if hasty else 10 * 60_000},
            ingest_stall_limit=2 * WAIT if hasty else 10 * 60_000,
            wait_after_root=self.rules.after_root,
            direct=direct,
            late_evidence=ERROR_LOG if restores else None,
        )
        self.by_evidence = 0  # restores that late errors set off
        self.quiet_at = 0
        self.quiet_for = 5 * WAIT + 2 * CLOCK_STEP * hasty
        self.truth: dict[int, TraceTruth] = {}
        self.events = sorted(self._programs(traces), key=lambda event: event[0])
        self.owners: dict[tuple[str, Place], Owner] = {}
        self.zombies: list[Owner] = []
        self.unowned_until: dict[tuple[str, Place], int] = {}
        self.slots: dict[tuple[str, Place], Callable[[], Owner]] = {}
        for topic, count in RAW.items() if not direct else ():
            for partition in range(count):
                place = (topic, partition)
                self.slots["ingest", place] = lambda place=place: Ingest(self, place)  # type: ignore[misc]
        kind = Direct if direct else Sample
        for index in range(PARTITIONS):
            self.slots["sample", (SPANS, index)] = lambda index=index: kind(self, index)  # type: ignore[misc]
        self.destination = Destination()
        for place in [(topic, i) for topic in (KEPT_SPANS, KEPT_LOGS) for i in range(PARTITIONS)] if whole else ():
            self.slots["sink", place] = lambda place=place: Sink(self, place, self.destination)  # type: ignore[misc]
        if whole:
            self.slots["aggregate", (POINTS, 0)] = lambda: Aggregate(self, (POINTS, 0), (SAMPLES, 0))
            self.steps *= 2

    def _programs(self, traces: int) -> list[tuple[int, Place, bytes]]:
        rng, events = self.rng, []
        for number in range(traces):
            trace_id = rng.randbytes(16)
            first = START + rng.randrange(0, 12_000)
            truth = self.truth[trace_key(trace_id)] = TraceTruth(trace_id)
            fails = rng.random()
            count = rng.randint(1, 6)
            roots = {rng.randrange(count)} if rng.random() < 0.8 else set(range(0, count, rng.randint(2, 6)))
            for index in range(count):
                late = fails >= 0.4 and rng.random() < 0.1
                at = first + (rng.randrange(0, 1_500) if not late else rng.randrange(WAIT, HORIZON // 2)) * (index > 0)
                failed = (fails < 0.2 and index == 0) or (self.restores and late and fails >= 0.7)
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
                place = placed(trace_id) if self.direct else rng.randrange(RAW["raw_spans"])
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
                place = placed(trace_id) if self.direct else 0
                events.append((at, ("raw_logs", place), logs.SerializeToString()))
        return events

    # ---- running -----------------------------------------------------------------------------------------

    def run(self) -> Simulation:
        """The whole history: faults first, then quiet until everything is decided and forwarded."""
        backlog = self.rng.random() < 0.3  # a cold start: everything is there before the first owner
        if backlog:
            self._advance(60_000)
        for _ in range(self.steps):
            self._advance(self.rng.choice((1, 20, 100, 300)))
            if self.faults:
                self._break()
            self._act()
        self.faults, self.crash_after_commit, self.broker.torn = False, 0.0, 0.0
        self.quiet_at = self.broker.now + self.quiet_for
        self.unowned_until.clear()
        while self.events or self.broker.now < self.quiet_at:
            self._advance(1_000)
            if self.events:
                self.quiet_at = self.broker.now + self.quiet_for
            self._settle()
        return self

    def _advance(self, ms: int) -> None:
        broker = self.broker
        broker.now += ms
        self._produce(broker.now)
        for transactional_id, since in list(broker.opened.items()):
            if broker.now - since > TRANSACTION_TIMEOUT:
                broker.time_out(transactional_id)

    def interrupt(self) -> None:
        """Between two effects of somebody: who stopped in the middle of a transaction may go on with it."""
        if self.broker.stopped and self.rng.random() < 0.3:
            with contextlib.suppress(Fenced):
                self.broker.stopped.pop(self.rng.randrange(len(self.broker.stopped)))()

    def _produce(self, until: int) -> None:
        while self.events and self.events[0][0] <= until:
            at, place, value = self.events.pop(0)
            self.broker.append(place, value, at)

    def _own(self, slot: tuple[str, Place]) -> Owner | None:
        owner = self.owners.get(slot)
        if owner is None and self.broker.now >= self.unowned_until.get(slot, 0):
            try:
                owner = self.owners[slot] = self.slots[slot]()
            except Fenced:  # the answer to its first checkpoint was lost
                return None
        return owner

    def _act(self) -> None:
        slot = self.rng.choice(list(self.slots))
        owner = self._own(slot)
        if owner is not None:
            try:
                owner.step()
            except Fenced:
                self.owners.pop(slot, None)
        self.interrupt()
        if self.zombies and self.rng.random() < 0.5:
            zombie = self.rng.choice(self.zombies)
            try:
                zombie.step()
            except (Fenced, OutOfRange):  # what it still wants to read, its successor has passed
                self.zombies.remove(zombie)

    def _break(self) -> None:
        if self.hasty and self.rng.random() < 0.005:
            self.broker.step += self.rng.choice((-CLOCK_STEP, CLOCK_STEP))
        if self.rng.random() > 0.06:
            return
        self._delete_old()
        slot = self.rng.choice(list(self.slots))
        owner = self.owners.pop(slot, None)
        if owner is None:
            return
        kind = self.rng.random()
        if kind < 0.3:
            self.zombies.append(owner)  # it goes on while somebody else takes over
        elif kind < 0.6:
            self.unowned_until[slot] = self.broker.now + self.rng.choice((500, 3 * WAIT))

    def _delete_old(self) -> None:
        """Retention deletes what its readers have passed, and decisions before those that a new owner loads."""
        place = self.rng.choice(list(self.broker.offsets)) if self.broker.offsets else None
        if place is None or self.restores:  # a restore reads all that was ever passed
            return
        offset, pointer = self.broker.offsets[place]
        self.broker.delete_before(place, offset)
        state = DECISIONS if place[0] in self.topics else SAMPLES if place[0] == POINTS else ""
        if state and pointer:
            self.broker.delete_before((state, place[1]), int(pointer))

    def _settle(self) -> None:
        for slot in self.slots:
            owner = self._own(slot)
            assert owner is not None
            try:
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
                    while owner.busy:
                        owner.send()
                    owner.commit()
                else:
                    for topic in self.topics:
                        owner.read(topic, 10**6)
                    for _ in range(40):
                        owner.reread(50)
                        owner.burst()
            except Fenced:
                self.owners.pop(slot, None)

    # ---- the truth ---------------------------------------------------------------------------------------

    def verify(self) -> Counter[str]:
        """Compare outcome and truth; returns what was seen. Raises AssertionError naming the first difference."""
        verdicts, right = (
            self._verdicts(),
            oracle.verdicts({t.trace_id: t.rows for t in self.truth.values()}, self.rules),
        )
        spans, logs, counted = self._forwarded()
        seen: Counter[str] = Counter(traces=len(self.truth), counted=counted, evidence=self.by_evidence)
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
            assert policy == expected_policy or self.hasty, (
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
        if self.whole:
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
        assert not self.destination.unexplained.total(), "rows were delivered twice by the owner that had the answer"

    def _verdicts(self) -> dict[int, Verdict]:
        """The one verdict of every trace, or the one that superseded a drop; any other second one is an error."""
        found: dict[int, Verdict] = {}
        for index in range(PARTITIONS):
            for value in self.broker.logs[DECISIONS, index].values():
                record = DecisionRecord.decode(value)
                for key, verdict in zip(record.keys, record.verdicts, strict=True):
                    if verdict.policy == RESTORED and key in record.restored and not found[key].kept:
                        found[key] = verdict
                    assert found.setdefault(key, verdict) == verdict, f"{key:016x} has two verdicts"
        return found

    def _forwarded(self) -> tuple[dict[int, Counter[bytes]], dict[int, Counter[int]], int]:
        spans: dict[int, Counter[bytes]] = defaultdict(Counter)
        logs: dict[int, Counter[int]] = defaultdict(Counter)
        for index in range(PARTITIONS):
            for topic in (KEPT_SPANS, KEPT_LOGS):
                for value in self.broker.logs[topic, index].values():
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
