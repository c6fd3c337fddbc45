"""The owners of partitions of ingest and sample, in the simulation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pipeline.kafka.ingested import marks
from pipeline.kafka.pace import BurstSize
from processors.feeds import place_of
from processors.regroup import Regroup
from processors.sampling.restore import Outcome, Restoration
from processors.sampling.window import Window
from processors.span_metrics import SpanMetrics
from processors.stream_time import BrokerClock, RawMark
from schemas.decision import DecisionRecord
from schemas.envelope import Envelope
from schemas.errors import ProtocolError
from schemas.raw_batch import RawReader
from schemas.raw_offset import RawOffset
from tests.simulation.kafka import Fenced, Fetched, Place

if TYPE_CHECKING:
    from tests.simulation.history import Simulation

RAW = {"raw_spans": 2, "raw_logs": 1}
SPANS, LOGS, DECISIONS = "spans", "logs", "decisions"
KEPT_SPANS, KEPT_LOGS, POINTS, SAMPLES = "kept.spans", "kept.logs", "points", "samples"
RESTORES = 0.1  # of an owner's steps
NARROW = (
    2_000  # bytes that a transaction may have in time: little more than the largest record with what has to go with it
)
WIDE = 1 << 14  # bytes of a transaction, before anything times out


class Ingest:
    """The owner of one raw partition, as pipeline.ingest does it."""

    def __init__(self, sim: Simulation, place: Place) -> None:
        self.sim, self.place = sim, place
        self.id, self.release, partitions = f"ingest.{place[0]}.{place[1]}", sim.release(), sim.partitions
        broker = sim.broker
        self.epoch = broker.init(self.id)
        sim.interrupt()
        self.next, metadata = broker.committed(place) or (0, "")
        self.committed = self.next
        known = RawOffset.unpack(metadata)
        self.target = SPANS if place[0] == "raw_spans" else LOGS
        if known.place is not None and len(self.marks(known.place)) > known.own:
            raise Fenced  # the offset is out of date: it takes over again
        self.behind = broker.logs[self.target, 0].end  # its last mark
        if sim.in_force() not in (None, partitions):
            raise ProtocolError(f"N = {sim.in_force()} partitions are in force, not {partitions}")
        self.mark, self.partitions = RawMark(known.mark), partitions
        self.clock = BrokerClock()
        signal = "traces" if self.target == SPANS else "logs"
        self.regroup = Regroup(*place, signal, "otlp_proto", partitions, 1 << 20, 1 << 20)

    def marks(self, start: int) -> list[int]:
        """Where its predecessors have left marks from there on."""
        written = self.sim.broker.logs[self.target, 0].committed()
        return marks((offset, 0, value) for offset, value in written if offset >= start).get(self.place, [])

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
        metadata = RawOffset(mark, 0, self.partitions, self.behind).pack()
        if not self.release.writes_place:
            metadata = metadata.rsplit("/", 2)[0]
        written = self.sim.commit(self, outputs, lambda _: {self.place: (self.next, metadata)})
        self.behind = 1 + max(at for (place, _), at in zip(outputs, written, strict=True) if place == (self.target, 0))
        self.clock.observe(max(broker.now + broker.step, mark or 0), broker.now / 1000)
        self.committed = self.next


class Sample:
    """The owner of partition i of spans and logs, as pipeline.sample does it."""

    def __init__(self, sim: Simulation, index: int) -> None:
        self.sim, self.index = sim, index
        self.places = {feed: place_of(feed, index) for feed in sim.feeds}
        self.id, self.release = f"sample.{index}", sim.release()
        broker, plan = sim.broker, sim.plan
        self.window = Window(index, sim.settings, plan, SpanMetrics("traces", [], [100.0], plan.keys))
        if self.id in sim.sizes:
            self.window.limit = sim.sizes[self.id].bytes
        committed = self.take_over()
        pointer = next((found[1] for found in committed.values() if found and found[1]), "")
        log = broker.logs[DECISIONS, index]
        for offset, _, value in sim.read(self, (DECISIONS, index), int(pointer or log.start), log.end)[0]:
            self.window.load(offset, value)
        starts = {feed: broker.logs[place].start for feed, place in self.places.items()}
        self.window.resume({t: found[0] if found else None for t, found in committed.items()}, starts)
        self.restoring: Restoration | None = None
        self.restored = False  # in the next burst: the next one begins when the log has it (operating/restore.py)
        self.late: list[int] = []  # traces that late errors speak for, whose drop is in the log

    def take_over(self) -> dict[str, tuple[int, str] | None]:
        """Fence the predecessor, then ask for the offsets (F8)."""
        self.epoch = self.sim.broker.init(self.id)
        self.sim.interrupt()
        return {feed: self.sim.broker.offsets.get(place) for feed, place in self.places.items()}

    def step(self) -> None:
        """Read a head, or let the tail catch up, or burst."""
        rng = self.sim.rng
        if self.sim.restores and rng.random() < RESTORES:
            self.restore(rng.randint(1, 9))
            return
        choice = rng.random()
        if choice < 0.6:
            self.read(rng.choice(list(self.places)), rng.randint(1, 6))
        elif choice < 0.75:
            self.reread(rng.randint(1, 5))
        else:
            self.burst()

    def read(self, feed: str, count: int) -> None:
        log, before = self.sim.broker.logs[self.places[feed]], self.before()
        records, after = self.sim.read(self, self.places[feed], self.window.positions()[feed], count)
        self.feed(feed, records)
        if after >= log.end:
            self.window.ended(feed, before)

    def before(self) -> int:
        """What counts as read when the end of a topic is found."""
        return self.window.newest_append

    def feed(self, name: str, records: list[Fetched]) -> None:
        for record in records:
            self.window.head(name, *record)

    def reread(self, count: int) -> None:
        for feed, (position, end) in self.window.held.wanted().items():
            records, after = self.sim.read(self, self.places[feed], position, count)
            self.feed_again(feed, [r for r in records if r[0] < end], min(after, end))

    def feed_again(self, feed: str, records: list[Fetched], position: int) -> None:
        self.window.reread(feed, records, position)

    def restore(self, count: int) -> None:
        """Begin to bring a dropped trace back, read a little more for it, or hand it over."""
        if self.restored:
            return
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
            self.restoring = Restoration(key, "seen again", dict.fromkeys(self.places, 0), heads, self.sim.partitions)
        found = self.restoring
        for feed, (position, tail) in found.behind(self.window.tails()).items():
            records, after = self.sim.read(self, self.places[feed], position, count)
            for value in self.values(feed, [record for record in records if record[0] < tail]):
                found.add(feed, value)
            found.positions[feed] = min(after, tail)
        if not found.behind(self.window.tails()):
            self.restored = self.window.restore(found) is Outcome.RESTORED
            self.restoring = None

    def values(self, feed: str, records: list[Fetched]) -> list[Envelope]:
        """These records as envelopes."""
        return [Envelope.decode(value) for _, _, value in records]

    def burst(self, always: bool = False) -> bool:
        """One transaction, if there is something for one: whether there was. Raises Fenced."""
        late, self.window.late_errors = self.window.late_errors, {}
        self.late += late
        size = self.narrowed()
        burst = self.window.burst(always=always, is_long=self.is_long)
        if burst is None:
            return False
        index = self.index
        outputs = [((DECISIONS, index), burst.decisions)]
        outputs += [((KEPT_SPANS, index), value) for value in burst.kept_spans]
        outputs += [((KEPT_LOGS, index), value) for value in burst.kept_logs]
        outputs += [((POINTS, 0), points.encode()) for points in burst.points]
        pointer = "" if burst.load_from is None else str(burst.load_from)
        offsets = {self.places[feed]: (offset, pointer) for feed, offset in burst.tails.items()}
        if size is not None and sum(len(value) for _, value in outputs) > NARROW:
            self.sim.timed_out += 1
            size.failed()
            raise Fenced
        written = self.sim.commit(self, outputs, lambda _: offsets)
        if size is not None:
            size.took(0.0, burst.more)
        if self.sim.rng.random() < self.sim.answers_lost:
            raise Fenced  # the owner has to drop everything and take over again
        self.window.committed(written[0])
        self.restored = False
        self.appended(self.sim.broker.now + self.sim.broker.step)
        return True

    def narrowed(self) -> BurstSize | None:
        """What the worker knows of the size of transactions, where the time for one is short."""
        if not self.sim.kind.narrow:
            return None
        size = self.sim.sizes.setdefault(self.id, BurstSize(WIDE))
        self.window.limit = size.bytes
        return size

    def is_long(self) -> bool:
        """Whether a burst takes too much of the worker's time."""
        return self.sim.kind.narrow and self.sim.rng.random() < 0.2

    def appended(self, time_ms: int) -> None:
        """A transaction was acknowledged."""


class Direct(Sample):
    """The owner of partition i of the raw topics, or of all of them, as pipeline.direct does it."""

    def __init__(self, sim: Simulation, index: int) -> None:
        super().__init__(sim, index)
        self.clock = BrokerClock()
        signals = {"raw_spans": "traces", "raw_logs": "logs"}
        self.readers = {
            feed: RawReader(*place, sim.partitions, signals[place[0]], 1 << 20, 1 << 20)
            for feed, place in self.places.items()
        }
        self.burst(always=True)

    def appended(self, time_ms: int) -> None:
        marks = [mark for mark, _ in self.window.marks().values()]
        self.clock.observe(max([time_ms, *marks]), self.sim.broker.now / 1000)

    def before(self) -> int:
        now = self.clock.now(self.sim.broker.now / 1000)
        assert now is not None
        return now

    def feed(self, name: str, records: list[Fetched]) -> None:
        counted = self.window.uncounted(name)
        for part in ([r for r in records if r[0] < counted], [r for r in records if r[0] >= counted]):
            if part:
                self.window.head(name, part[0][0], self.before(), self.readers[name].read(part))

    def values(self, feed: str, records: list[Fetched]) -> list[Envelope]:
        return [self.readers[feed].read(records).rows] if records else []

    def feed_again(self, feed: str, records: list[Fetched], position: int) -> None:
        batches = [(records[0][0], self.before(), self.readers[feed].read(records))] if records else []
        self.window.reread(feed, batches, position)
