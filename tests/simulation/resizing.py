"""Another N, in the simulation: what pipeline.operating.resize does, effect by effect, on the simulated Kafka."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from processors.sampling.rekey import Decisions, Rows, follow, join
from schemas.decision import Checkpoint, DecisionRecord
from schemas.envelope import Envelope
from schemas.raw_offset import RawOffset
from tests.simulation.kafka import Place
from tests.simulation.owners import DECISIONS, LOGS, RAW, SPANS

if TYPE_CHECKING:
    from tests.simulation.history import Simulation

PAIR = (SPANS, LOGS)
ID = "resize"


@dataclass(slots=True)
class Left:
    """What an old partition leaves."""

    point: Checkpoint
    tails: dict[str, int]
    records: list[DecisionRecord]


@dataclass(slots=True)
class Written:
    """Where a new partition of a topic begins, ends so far, and up to where its spans are counted."""

    first: int
    end: int
    counted: int = -1


class Resizing:
    """One run of the command, from looking to the commit. Any effect may be its last."""

    def __init__(self, sim: Simulation, after: int) -> None:
        self.sim, self.broker, self.after = sim, sim.broker, after
        self.places: dict[Place, Written] = {}

    def run(self) -> None:
        """Do it. Raises Fenced, Crashed."""
        self.broker.init(ID)  # what one that was killed left open
        self._pause()
        if self._in_force() == self.after:
            return
        self.fence()
        epoch = self.broker.init(ID)
        left = [self._left(index) for index in range(self._in_force())]
        for topic in PAIR:
            for target, envelope, counted in self._rows(topic, left):
                self._write(epoch, (topic, target), envelope.encode(), counted)
        for target, record in self._verdicts(left):
            self._write(epoch, (DECISIONS, target), record.encode())
        self.broker.send_offsets(ID, epoch, self._offsets(left))
        self._pause()
        self.broker.end(ID, epoch, commit=True)

    def fence(self) -> None:
        """Who sleeps through it writes nothing any more."""
        for topic, count in RAW.items():
            for partition in range(count):
                self.broker.init(f"ingest.{topic}.{partition}")
                self._pause()
        for index in range(max(self._in_force(), self.after)):
            self.broker.init(f"sample.{index}")
            self._pause()

    def _pause(self) -> None:
        """Between two effects it may end, and others act."""
        self.sim.crash_here(ID)
        self.sim.interrupt()
        self.sim.wake()

    def _in_force(self) -> int:
        """N as ingest's offsets say it, the verdicts, or the configuration."""
        return self.sim.in_force() or self._decided_by() or self.sim.partitions

    def _decided_by(self) -> int | None:
        log = self.broker.logs[DECISIONS, 0]
        decided = log.read(self._pointer(0), 1)[0]
        return DecisionRecord.decode(decided[0].value).partitions if decided else None

    def _pointer(self, index: int) -> int:
        """From where a new owner would read the verdicts."""
        committed = [self.broker.offsets.get((topic, index)) for topic in PAIR]
        pointer = next((found[1] for found in committed if found and found[1]), "")
        return int(pointer or self.broker.logs[DECISIONS, index].start)

    def _raw(self) -> list[Place]:
        return [(topic, partition) for topic, count in RAW.items() for partition in range(count)]

    def _left(self, index: int) -> Left:
        log, point, records = self.broker.logs[DECISIONS, index], None, []
        for _, _, value in log.read(self._pointer(index), log.end)[0]:
            records.append(DecisionRecord.decode(value))
            point = follow(point, records[-1].checkpoint)
        starts = {topic: self.broker.logs[topic, index].start for topic in PAIR}
        return Left(point or Checkpoint(), dict(point.tails) if point else starts, records)

    def _rows(self, topic: str, left: list[Left]) -> Iterator[tuple[int, Envelope, bool]]:
        """What the tails have not passed: what is counted first, by append time."""
        for target in range(self.after):
            yield target, Envelope(self.after, "", 0), True
        rows = Rows([one.point for one in left], self.after)
        for counted in (True, False):
            found = []
            for index, one in enumerate(left):
                log, upto = self.broker.logs[topic, index], one.point.counted.get(topic, 0)
                for offset, append, value in log.read(one.tails[topic], log.end)[0]:
                    if (offset < upto) == counted:
                        found.append((append, index, offset, value))
            for append, index, _, value in sorted(found):
                for target, envelope in rows.place(index, append, Envelope.decode(value)):
                    yield target, envelope, counted

    def _verdicts(self, left: list[Left]) -> Iterator[tuple[int, DecisionRecord]]:
        joined, decisions = join([one.point for one in left]), Decisions(self.after)
        full = [placed for one in left for record in one.records for placed in decisions.add(record)]
        for target, record in [*full, *decisions.rest()]:
            places = {topic: self.places[topic, target] for topic in PAIR}
            tails = {topic: place.first for topic, place in places.items()}
            counted = {topic: place.counted for topic, place in places.items()}
            record.checkpoint = replace(joined, tails=tails, counted=counted)
            yield target, record

    def _write(self, epoch: int, place: Place, value: bytes, counted: bool = False) -> None:
        offset = self.broker.send(ID, epoch, place, value)
        found = self.places.setdefault(place, Written(offset, offset))
        found.end = offset + 1
        if counted:
            found.counted = found.end
        self._pause()

    def _offsets(self, left: list[Left]) -> dict[Place, tuple[int, str]]:
        moved: dict[Place, tuple[int, str]] = {}
        for topic in PAIR:
            for target in range(self.after):
                moved[topic, target] = self.places[topic, target].first, str(self.places[DECISIONS, target].first)
            for index in range(self.after, len(left)):
                moved[topic, index] = self.broker.logs[topic, index].end, ""
        for place in self._raw():
            if place in self.broker.offsets:
                offset, metadata = self.broker.offsets[place]
                behind = self.places[SPANS if place[0] == "raw_spans" else LOGS, 0].end
                known = RawOffset.unpack(metadata)
                moved[place] = offset, replace(known, partitions=self.after, place=behind, own=0).pack()
        return moved
