"""What a sink's offsets, batches and waits are made of: no Kafka, no loop, no clock of its own.

A `Ticket` stands for the rows of one record (or of several, when a sink answers for them together); an `Account`
is one partition's tickets in offset order, and moves its position only past tickets whose rows are all settled. A
`Lane` is a queue cut into batches by count, bytes and age. A `Backoff` says how long to wait.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import NamedTuple

from sinks.contract import Item
from sinks.settings import Batch, Retry

LONGEST_RETRY_AFTER = 300.0  # seconds: one wrong header must not stop a sink for a day


@dataclass(slots=True)
class Account:
    """How far one partition is settled. `position` is the offset to commit: everything before it is settled.

    `closed`: the partition is somebody else's now; what is still queued of it is not sent.
    """

    position: int
    closed: bool = False
    _tickets: deque[Ticket] = field(default_factory=deque)

    def open(self, upto: int, rows: int) -> Ticket:
        """A ticket for so many rows; when they are settled, and all before them, the position becomes `upto`."""
        ticket = Ticket(self, upto, rows)
        self._tickets.append(ticket)
        self._move()
        return ticket

    def _move(self) -> None:
        while self._tickets and not self._tickets[0].unsettled:
            self.position = self._tickets.popleft().upto

    @property
    def unsettled(self) -> int:
        """Rows that are neither delivered nor dead letters."""
        return sum(ticket.unsettled for ticket in self._tickets)


@dataclass(slots=True)
class Ticket:
    """The rows that must be settled before an account's position may become `upto`. `begun`: some were cut out."""

    account: Account
    upto: int
    unsettled: int
    begun: bool = False

    def settle(self, rows: int = 1) -> None:
        """So many rows are done with."""
        self.unsettled -= rows
        if not self.unsettled:
            self.account._move()


class Entry(NamedTuple):
    """An item on its way. `since` is when it was queued (monotonic seconds)."""

    ticket: Ticket
    item: Item
    since: float


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

    @property
    def begun(self) -> bool:
        """Whether the rest of a record comes next."""
        return bool(self._entries) and self._entries[0].ticket.begun

    def cut(self, rest: bool = False) -> list[Entry]:
        """The next batch: at most `max_items` rows and `max_bytes`, unless the first item alone has more.

        With `rest` only of records that are begun; there must be one.
        """
        batch: list[Entry] = []
        rows = size = 0
        while self._entries:
            ticket, item, _ = self._entries[0]
            if batch and (rows + item.rows > self._batch.max_items or size + item.size > self._batch.max_bytes):
                break
            if rest and not ticket.begun:
                break
            ticket.begun = True
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
    return [Entry(ticket, item, since) for ticket, whole, since in entries for item in whole.singles()]
