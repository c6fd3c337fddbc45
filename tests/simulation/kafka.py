"""Kafka as the protocol relies on it, in memory: no sockets, no threads, a clock that the test sets.

Partitions with offsets, transactions with epochs, control markers, the last stable offset, group offsets that move with
a transaction, retention. What it does is pinned by test_conformance.py, which asks the same of a real broker.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from tests.simulation.groups import Group

Place = tuple[str, int]
"""A topic and a partition of it."""

Offsets = Mapping[Place, tuple[int, str]]
"""Offsets of a group and their metadata."""


class Fenced(Exception):
    """The epoch is not the newest of its transactional id."""


class OutOfRange(Exception):
    """The position is before the first offset, or after the last."""


class Fetched(NamedTuple):
    """A visible record: its offset, when it was appended (ms), its value."""

    offset: int
    append: int
    value: bytes


@dataclass(slots=True)
class Entry:
    """One offset of a partition; a value of None is a control marker. `writer` is the transactional id, if any."""

    append: int
    value: bytes | None
    writer: str = ""
    state: Literal["open", "committed", "aborted"] = "committed"


@dataclass(slots=True)
class Log:
    """One partition. What is before `start` is deleted; `open` has the first offset of each open transaction."""

    entries: list[Entry] = field(default_factory=list)
    start: int = 0
    open: dict[str, int] = field(default_factory=dict)

    @property
    def end(self) -> int:
        """The offset of the next record: the high watermark."""
        return len(self.entries)

    @property
    def stable(self) -> int:
        """The last stable offset: that of the first record of an open transaction."""
        return min(self.open.values(), default=self.end)

    def read(self, position: int, count: int, committed: bool = True) -> tuple[list[Fetched], int]:
        """Up to `count` records from `position` on, and the position after them: markers are passed, not shown.

        `committed`: neither what is aborted nor what is at or after the last stable offset. Raises OutOfRange.
        """
        if not self.start <= position <= self.end:
            raise OutOfRange(f"{position} is not in {self.start}..{self.end}")
        found: list[Fetched] = []
        end = self.stable if committed else self.end
        while position < end and len(found) < count:
            entry = self.entries[position]
            if entry.value is not None and not (committed and entry.state == "aborted"):
                found.append(Fetched(position, entry.append, entry.value))
            position += 1
        return found, position

    def committed(self) -> list[tuple[int, bytes]]:
        """Everything that was ever committed, deleted or not, with its offset."""
        entries = enumerate(self.entries)
        return [(offset, e.value) for offset, e in entries if e.value is not None and e.state == "committed"]

    def values(self) -> list[bytes]:
        """The same, alone."""
        return [value for _, value in self.committed()]


class SimulatedKafka:
    """One broker. `now` (ms) is the time, `step` what its clock differs by; `opened`: when transactions began.

    While it loads (`load`) it tells offsets as they once were, as a broker of Kafka 4.1 may that was killed (M21).
    """

    def __init__(self, now: int = 0) -> None:
        self.now, self.step = now, 0
        self.logs: dict[Place, Log] = defaultdict(Log)
        self.offsets: dict[Place, tuple[int, str]] = {}
        self._loads_until = 0
        self._then: dict[Place, tuple[int, str]] = {}  # what is told meanwhile, where there was something then
        self._now: dict[Place, tuple[int, str]] = {}
        self.epochs: Counter[str] = Counter()
        self.opened: dict[str, int] = {}
        self._touched: dict[str, set[Place]] = {}
        self._pending: dict[str, dict[Place, tuple[int, str]]] = {}

    def append(self, place: Place, value: bytes, timestamp: int | None = None) -> int:
        """A record of no transaction; its offset."""
        self.logs[place].entries.append(Entry(self.now + self.step if timestamp is None else timestamp, value))
        return self.logs[place].end - 1

    def delete_before(self, place: Place, offset: int) -> None:
        """Retention: what was before `offset` is gone."""
        log = self.logs[place]
        log.start = max(log.start, min(offset, log.end))

    def load(self, ms: int) -> None:
        """For so long it tells offsets as they were when it loaded before."""
        self._loads_until = self.now + ms
        self._then, self._now = self._now, dict(self.offsets)

    def committed(self, place: Place) -> tuple[int, str] | None:
        """The group's offset and its metadata as it is told; None: none."""
        found = self.offsets.get(place)
        return self._then.get(place, found) if self.now < self._loads_until else found

    # ---- transactions ------------------------------------------------------------------------------------

    def init(self, transactional_id: str) -> int:
        """InitProducerId: a new epoch. What the one before had open is aborted."""
        self._finish(transactional_id, "aborted")
        self.epochs[transactional_id] += 1
        return self.epochs[transactional_id]

    def time_out(self, transactional_id: str) -> bool:
        """The broker aborts a transaction that was open for too long, and fences its owner; whether there was one."""
        if transactional_id not in self.opened:
            return False
        self.init(transactional_id)
        return True

    def send(self, transactional_id: str, epoch: int, place: Place, value: bytes) -> int:
        """A record of the open transaction; its offset. Raises Fenced."""
        self._check(transactional_id, epoch)
        self.opened.setdefault(transactional_id, self.now)
        self._touched.setdefault(transactional_id, set()).add(place)
        log = self.logs[place]
        log.open.setdefault(transactional_id, log.end)
        log.entries.append(Entry(self.now + self.step, value, transactional_id, "open"))
        return log.end - 1

    def send_offsets(self, transactional_id: str, epoch: int, offsets: Offsets) -> None:
        """Offsets that move with the open transaction. Raises Fenced."""
        self._check(transactional_id, epoch)
        self.opened.setdefault(transactional_id, self.now)
        self._pending.setdefault(transactional_id, {}).update(offsets)

    def commit_plain(self, group: Group, member: str, generation: int, offsets: Offsets) -> None:
        """Offsets outside a transaction. Raises what `Group.may_commit` raises."""
        group.may_commit(member, generation)
        self.offsets.update(offsets)

    def end(self, transactional_id: str, epoch: int, commit: bool) -> None:
        """Commit or abort. Raises Fenced."""
        self._check(transactional_id, epoch)
        self._finish(transactional_id, "committed" if commit else "aborted")

    def _check(self, transactional_id: str, epoch: int) -> None:
        if self.epochs[transactional_id] != epoch:
            raise Fenced

    def _finish(self, transactional_id: str, state: Literal["committed", "aborted"]) -> None:
        self.opened.pop(transactional_id, None)
        for place in sorted(self._touched.pop(transactional_id, ())):
            log = self.logs[place]
            for entry in log.entries[log.open.pop(transactional_id) :]:
                if entry.writer == transactional_id and entry.state == "open":
                    entry.state = state
            log.entries.append(Entry(self.now + self.step, None))
        pending = self._pending.pop(transactional_id, {})
        if state == "committed":
            self.offsets.update(pending)
