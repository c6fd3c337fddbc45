"""What comes after sample, in the simulation: the owner of points, the owners of what sinks read, a destination."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import chain, pairwise
from typing import TYPE_CHECKING

from pipeline.sending.settled import Settled
from pipeline.sending.settlement import Account, Entry, Lane, entries_of
from processors.cardinality import Limits
from processors.span_metrics import span_metric_names
from processors.ticks import DueTick, Ticks
from schemas.envelope import Envelope
from schemas.errors import ProtocolError
from schemas.point import Labels
from schemas.sample import Tick, read_tick
from sinks.contract import Coordinates, Item, SourceRecord
from sinks.settings import Batch
from tests.simulation.groups import SESSION
from tests.simulation.kafka import Fenced, Offsets, Place

if TYPE_CHECKING:
    from tests.simulation.history import Simulation

INTERVAL = 1_000  # ms between ticks
LIMITS = Limits(series=10_000, values=1_000)
NAMES = span_metric_names("traces", [], [100.0])
SHAPES = {NAMES.calls: NAMES.calls_shape, NAMES.duration: NAMES.duration_shape}
BATCH = Batch(max_items=3, max_age=1.0)

RowId = tuple[Place, int, int]
"""Where a row is: the partition, the offset of its record, its place in it."""


class Aggregate:
    """The owner of a partition of points, as pipeline.aggregate does it."""

    def __init__(self, sim: Simulation, points: Place, samples: Place) -> None:
        self.sim, self.points, self.samples = sim, points, samples
        self.id, self.release = f"aggregate.{points[1]}", sim.release()
        broker, log = sim.broker, sim.broker.logs[samples]
        self.epoch = broker.init(self.id)
        sim.interrupt()
        self.ticks = Ticks(1, INTERVAL, LIMITS, SHAPES)
        committed = broker.offsets.get(points)
        if committed is None:
            self.ticks.begin(broker.logs[points].start)
        else:
            records, _ = sim.read(self, samples, int(committed[1]), log.end)
            values = iter([record.value for record in records])
            self.load(read_tick(values), committed[0])
            if next(values, None) is not None:
                raise ProtocolError("there is a tick after the last one committed")
        self.next = self.ticks.next_offset

    def load(self, tick: Tick, committed: int) -> None:
        """Go on after a tick."""
        self.ticks.load(tick, committed, self.sim.broker.now / 1000)

    def step(self) -> None:
        """Count a few points, or look at what is due."""
        broker, rng = self.sim.broker, self.sim.rng
        if rng.random() < 0.7:
            self.count(rng.randint(1, 5))
        else:
            self.commit(self.ticks.due(broker.now / 1000))

    def count(self, most: int) -> None:
        """Points in order; a tick goes out between two of them if an interval ends there."""
        broker = self.sim.broker
        records, self.next = self.sim.read(self, self.points, self.next, most)
        for offset, append, value in records:
            self.commit(self.ticks.before(append))
            self.ticks.point(offset, append, value, broker.now / 1000)

    def commit(self, due: DueTick | None) -> None:
        """One transaction."""
        if due is None:
            return
        broker, rng = self.sim.broker, self.sim.rng
        outputs = [(self.samples, value) for value in due.tick.encode()]
        upto = due.tick.points
        self.sim.commit(self, outputs, lambda written: {self.points: (upto, str(written[0]))})
        if rng.random() < self.sim.answers_lost:
            raise Fenced
        self.ticks.acknowledged(broker.now + broker.step, broker.now / 1000, at_end=True)


def ticks_of(values: list[bytes]) -> list[Tick]:
    """Every committed tick, in order."""
    found, left = [], iter(values)
    for first in left:
        found.append(read_tick(chain([first], left)))
    return found


def calls_of(tick: Tick) -> Mapping[Labels, float]:
    """Calls by label set."""
    return {labels: float(n) for b in tick.blocks if b.metric == NAMES.calls for labels, n in b.rows}  # type: ignore[arg-type]


@dataclass(slots=True, kw_only=True)
class Row(Item):
    """One row of an envelope."""

    id: RowId

    def dead_letter(self, *others: Row) -> bytes:
        """None is refused here."""
        raise NotImplementedError


@dataclass(slots=True)
class Destination:
    """Takes rows; `unexplained` were taken twice although the sender could know: it had the answer, or the offsets said
    so when it was given the partition (`commits` counts them), or have said so for a session.
    """

    taken: Counter[RowId] = field(default_factory=Counter)
    answered: dict[RowId, Sink] = field(default_factory=dict)
    committed: dict[RowId, tuple[int, int]] = field(default_factory=dict)  # by which commit, and when (ms)
    commits: int = 0
    unexplained: Counter[RowId] = field(default_factory=Counter)

    def take(self, rows: list[Entry], sink: Sink, answered: bool) -> None:
        """A request that arrives, and perhaps its answer."""
        now = sink.sim.broker.now
        for row in rows:
            assert isinstance(row.item, Row)
            self.taken[row.item.id] += 1
            commit, at = self.committed.get(row.item.id, (sink.began, now))
            told = commit < sink.began or now - at > SESSION
            self.unexplained[row.item.id] += told or self.answered.get(row.item.id) is sink
            if answered:
                self.answered[row.item.id] = sink

    def commit(self, rows: list[RowId], now: int) -> None:
        """The group knows that these are delivered."""
        self.committed |= dict.fromkeys(rows, (self.commits, now))
        self.commits += 1


def check_ticks(ticks: list[Tick], made: int) -> None:
    """Each tick continues the one before, no count falls, and in the end all spans are counted."""
    for before, after in pairwise(ticks):
        assert after.number == before.number + 1, f"tick {after.number} follows tick {before.number}"
        assert after.time_ms > before.time_ms, f"tick {after.number} is not later than the one before"
        now = calls_of(after)
        falls = any(now.get(labels, 0) < n for labels, n in calls_of(before).items())
        assert not falls, f"a counter falls at tick {after.number}"
    counted = sum(calls_of(ticks[-1]).values()) if ticks else 0
    assert counted == made, f"the last tick has {counted:g} spans, {made} were made"


class Sink:
    """The owner of a partition of what a sink reads, as pipeline.deliver does it: sends, settles, commits by itself."""

    def __init__(self, sim: Simulation, place: Place, to: Destination) -> None:
        self.sim, self.place, self.to = sim, place, to
        self.id = f"sink.{place[0]}.{place[1]}"
        self.release = sim.release()
        self.epoch = sim.broker.init(self.id)  # stands for the generation of the group, where there is none
        self.commits: Callable[[Sink, Offsets], bool] = _by_epoch
        log = sim.broker.logs[place]
        offset, metadata = sim.broker.offsets.get(place, (log.start, ""))
        self.account = Account(max(log.start, offset), Settled.unpack(metadata, offset))
        self.lane, self.next, self.began = Lane(BATCH), self.account.position, to.commits
        self.committed = offset, metadata
        self.heard = -SESSION  # when it was counted in last (ms)
        self.settled: list[RowId] = []  # and not committed
        self.again: list[list[Entry]] = []  # batches that wait for their next try, while others go

    def step(self) -> None:
        """Read a record, send a batch, or commit."""
        choice = self.sim.rng.random()
        if choice < 0.4:
            self.read(1)
        elif choice < 0.8:
            self.send()
        else:
            self.commit()

    def read(self, most: int) -> None:
        """Queue the rows of some records; what the offset has passed already may be deleted by now."""
        self.next = max(self.next, self.account.position)
        records, after = self.sim.read(self, self.place, self.next, most)
        for record in records:
            if self.account.has(record.offset):
                continue
            rows = range(len(Envelope.decode(record.value)))
            source = SourceRecord(*self.place, record.offset, record.append, record.value, "spans")
            ticket = self.account.open(source, len(rows))
            at = Coordinates(*self.place, record.offset, record.append, 0)
            items = [Row(origin=at, size=1, id=(self.place, record.offset, row)) for row in rows]
            for entry in entries_of(ticket, items, 0.0):
                self.lane.put(entry)
        self.next = after

    def send(self) -> None:
        """A batch: taken and answered, taken and not answered, or not even taken. What was not answered goes again."""
        if not self.confirmed():
            return
        rng = self.sim.rng
        if (self.again and rng.random() < 0.2) or not len(self.lane):
            batch = self.again.pop() if self.again else []
        else:
            batch = self.lane.cut()
        chance = rng.random() if self.sim.faults else 0.0
        if chance < 0.7:
            self.to.take(batch, self, answered=True)
            self.settle(batch)
            return
        if chance < 0.9:
            self.to.take(batch, self, answered=False)
        self.again.append(batch)

    @property
    def busy(self) -> bool:
        """Whether something has to be sent."""
        return bool(len(self.lane) or self.again)

    def settle(self, batch: list[Entry]) -> None:
        """They are delivered."""
        for entry in batch:
            assert isinstance(entry.item, Row)
            entry.ticket.settle(entry.row)
            self.settled.append(entry.item.id)

    def confirmed(self) -> bool:
        """Whether the group has counted this owner in within a session; if not, it is asked."""
        if self.sim.broker.now - self.heard >= SESSION:
            self.commit(unchanged=True)
        return self.sim.broker.now - self.heard < SESSION

    def commit(self, unchanged: bool = False) -> None:
        """What is settled, if the group still counts this owner in."""
        position = self.account.position
        mark = position, self.account.settled().pack(position)
        if (unchanged or mark != self.committed) and self.commits(self, {self.place: mark}):
            self.committed, self.heard = mark, self.sim.broker.now
            self.to.commit(self.settled, self.heard)
            self.settled = []


def _by_epoch(sink: Sink, offsets: Offsets) -> bool:
    broker = sink.sim.broker
    if broker.epochs[sink.id] != sink.epoch:
        raise Fenced
    broker.offsets.update(offsets)
    return True
