"""What a sink's offsets, batches and waits are made of: no Kafka, no loop, no clock of its own.

A `Ticket` stands for the rows of one record (or of several, when a sink answers for them together); an `Account`
is one partition's tickets in offset order, moves its position only past tickets whose rows are all settled, and knows
what is settled beyond it. A `Lane` is a queue cut into batches by count, bytes and age. A `Backoff` says how long to
wait.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import NamedTuple

from pipeline.sending.settled import Ranges, Settled
from sinks.contract import Item, SourceRecord
from sinks.endpoints import LONGEST_RETRY_AFTER
from sinks.settings import Batch, Retry

STANDS = 10.0  # seconds for which a position must have stood before owners after this one are told since when
FEW_TICKETS = 1024  # of which most may be settled, but for the first


class Account:
    """How far one partition is settled. `position` is the offset to commit: everything before it is settled.

    `known` is settled already when it begins. With `by_row` a record's rows are the same whoever encodes it, in the
    same order: then those of a record that is not settled as a whole are worth naming. `changed` is called whenever
    something is settled. `lost`: records before it `began` that retention took; counted once its position is committed.
    `closed`: the partition is somebody else's now; what is still queued of it is not sent.
    """

    def __init__(
        self,
        position: int,
        known: Settled | None = None,
        by_row: bool = True,
        changed: Callable[[], None] = lambda: None,
        lost: int = 0,
    ) -> None:
        self._known, self._by_row, self._changed = known or Settled(), by_row, changed
        self.began, self.lost = position, lost
        self.position, self.closed = self._known.records.behind(position), False
        self.last: tuple[int, int] | None = None  # offset and append time (ms) of the newest record that has a ticket
        self._tickets: deque[Ticket] = deque()
        self._many = FEW_TICKETS
        self._seen: tuple[int, float] | None = None  # the position when it was asked for last, and since when
        # The position that has stood for long, and since when: with that a predecessor's wait goes on.
        self._stands = None if self._known.since is None else (position, float(self._known.since))

    def open(self, record: SourceRecord, rows: int) -> Ticket:
        """A ticket for the rows of a record; when they are settled, and all before, the position is behind it."""
        known = self._known.rows.pop(record.offset, Ranges()) if self._by_row else ()
        done = Ranges((start, min(stop, rows)) for start, stop in known)
        ticket = Ticket(self, record.offset + 1, rows - sum(stop - start for start, stop in done), done)
        self.last = record.offset, record.timestamp
        self._tickets.append(ticket)
        self.settle()
        return ticket

    def has(self, offset: int) -> bool:
        """Whether a record is settled already, so that nobody needs to encode it."""
        return offset < self.position or offset in self._known.records

    def settled(self) -> Settled:
        """What is settled beyond the position, and since when that has stood, if it is long."""
        found = Settled(Ranges(self._known.records), dict(self._known.rows))
        if self._stands is not None and self._stands[0] == self.position:
            found.since = int(self._stands[1])
        before = self.position
        for ticket in self._tickets:  # each answers for what the one before leaves out: markers, parts of a tick
            if not ticket.unsettled:
                found.records.add(before, ticket.upto)
            elif ticket.done and self._by_row:
                found.rows[ticket.upto - 1] = ticket.done
            before = ticket.upto
        return found

    def settle(self) -> None:
        """Some row is settled."""
        while self._tickets and not self._tickets[0].unsettled:
            self.position = self._known.records.behind(self._tickets.popleft().upto)
        if len(self._tickets) > self._many:
            self._drop_settled()
        self._changed()

    def _drop_settled(self) -> None:
        """Ranges in the place of settled tickets: a record that is never accepted must not make others pile up."""
        left, before = deque[Ticket](), self.position
        for ticket in self._tickets:
            if ticket.unsettled:
                left.append(ticket)
            else:
                self._known.records.add(before, ticket.upto)
            before = ticket.upto
        self._tickets, self._many = left, max(FEW_TICKETS, 2 * len(left))

    @property
    def unsettled(self) -> int:
        """Rows that are neither delivered nor dead letters."""
        return sum(ticket.unsettled for ticket in self._tickets)

    def stood(self, now: float) -> float:
        """Seconds for which whoever asks (`now`: Unix time) has found the position where it is, and unsettled rows.

        What predecessors have found counts once it has stood for STANDS here as well: it may be about to go on.
        """
        if not self._tickets:
            self._seen = None
            return 0.0
        if self._seen is None or self._seen[0] != self.position:
            self._seen = self.position, now
        stood = max(0.0, now - self._seen[1])
        if stood < STANDS:
            return stood
        if self._stands is None or self._stands[0] != self.position:
            self._stands = self._seen
        return max(stood, now - self._stands[1])  # by another worker's clock


@dataclass(slots=True)
class Ticket:
    """The rows that must be settled before an account's position may become `upto`; `done` are settled."""

    account: Account
    upto: int
    unsettled: int
    done: Ranges

    def settle(self, row: int, rows: int = 1) -> None:
        """So many rows, from this one on, are done with."""
        self.unsettled -= rows
        self.done.add(row, row + rows)
        self.account.settle()


class Entry(NamedTuple):
    """An item on its way. `since` is when it was queued (monotonic seconds), `row` where it begins in the record."""

    ticket: Ticket
    item: Item
    since: float
    row: int = 0


class Lane:
    """Items in order, cut into batches by whichever of rows, bytes and age comes first."""

    def __init__(self, batch: Batch) -> None:
        self._batch = batch
        self._entries: deque[Entry] = deque()
        self._rows = self._bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def put(self, entry: Entry) -> None:
        """Queue an item."""
        self._entries.append(entry)
        self._rows += entry.item.rows
        self._bytes += entry.item.size

    def due_in(self, now: float) -> float | None:
        """Seconds until a batch is due (0: now), None while nothing is queued."""
        if not self._entries:
            return None
        if self._rows >= self._batch.max_items or self._bytes >= self._batch.max_bytes:
            return 0.0
        return max(0.0, self._entries[0].since + self._batch.max_age - now)

    def cut(self) -> list[Entry]:
        """The next batch: at most `max_items` rows and `max_bytes`, unless the first item alone has more."""
        batch: list[Entry] = []
        rows = size = 0
        while self._entries:
            item = self._entries[0].item
            if batch and (rows + item.rows > self._batch.max_items or size + item.size > self._batch.max_bytes):
                break
            rows += item.rows
            size += item.size
            batch.append(self._entries.popleft())
        self._rows -= rows
        self._bytes -= size
        return batch

    def purge(self) -> list[Entry]:
        """Take out the items of closed accounts."""
        gone = [entry for entry in self._entries if entry.ticket.account.closed]
        if gone:
            self._entries = deque(entry for entry in self._entries if not entry.ticket.account.closed)
            rows, size = sizes(gone)
            self._rows -= rows
            self._bytes -= size
        return gone


class Backoff:
    """Full jitter (AWS architecture blog, "Exponential backoff and jitter"). `random` gives 0 ≤ x < 1."""

    def __init__(self, retry: Retry, random: Callable[[], float]) -> None:
        self._retry, self._random = retry, random

    def wait(self, failures: int, retry_after: float | None = None) -> float:
        """Seconds to wait after so many failures in a row (1, 2, …).

        A destination that names a time is obeyed; jitter on top keeps its clients from coming all at once.
        """
        retry = self._retry
        if retry_after is not None:
            return min(retry_after, LONGEST_RETRY_AFTER) + self._random() * retry.initial_interval
        # The exponent stops growing where the result has long passed any maximum: floats overflow at 2**1024.
        longest = retry.initial_interval * retry.multiplier ** min(failures - 1, 64)
        return self._random() * min(longest, retry.max_interval)


def sizes(entries: Collection[Entry]) -> tuple[int, int]:
    """The rows and the bytes of some items."""
    return sum(entry.item.rows for entry in entries), sum(entry.item.size for entry in entries)


def singles(entries: Collection[Entry]) -> list[Entry]:
    """The same with an entry for each row."""
    return [
        Entry(ticket, item, since, row + number)
        for ticket, whole, since, row in entries
        for number, item in enumerate(whole.singles())
    ]


def entries_of(ticket: Ticket, items: Iterable[Item], since: float) -> list[Entry]:
    """An entry for each item of a record, or for what of it is not settled."""
    found, row = [], 0
    for item in items:
        entry = Entry(ticket, item, since, row)
        if not ticket.done.touches(row, row + item.rows):
            found.append(entry)
        else:
            found += [single for single in singles([entry]) if single.row not in ticket.done]
        row += item.rows
    return found
