"""What a sink is: encode records into items, items into a request, send it, say what became of each item.

A sink knows one destination and nothing of Kafka, retries, metrics or logs: pipeline/deliver.py queues, sends
again, dead-letters, commits and counts by what is returned here. Offsets move only past settled items: accepted,
already delivered, or refused and in the dead-letter queue.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, Literal, Self, TypeVar

from schemas.errors import Unavailable
from schemas.reasons import Reason

Signal = Literal["spans", "logs", "samples"]
NO_ANSWER = "no_answer"  # the reason of a retry without a status
DEAD_LETTERS = "dead_letters"  # that of one when it is the dead-letter queue that does not take something


@dataclass(frozen=True, slots=True)
class SourceRecord:
    """One record of an internal topic.

    `timestamp` is its append time in ms; `signal` is what its topic holds. `redelivered`: it was in the log when this
    worker took the partition over, so a predecessor may have delivered it already.
    """

    topic: str
    partition: int
    offset: int
    timestamp: int
    value: bytes
    signal: Signal
    redelivered: bool = False


@dataclass(slots=True)  # one for each row: frozen, it takes three times as long to make
class Coordinates:
    """Where an item came from: the raw record if it is known, else the internal one; `index` counts inside it.

    `timestamp` is the record's, in ms.
    """

    topic: str
    partition: int
    offset: int
    timestamp: int
    index: int

    @property
    def record(self) -> tuple[str, int, int]:
        """Topic, partition and offset: what all items of one record have in common."""
        return self.topic, self.partition, self.offset


@dataclass(frozen=True, slots=True)
class Refusal:
    """Row `index` of a request will never be accepted as it is.

    `detail` is the destination's own text, on one line and cut; `said` its answer as it came, if there was one.
    """

    index: int
    detail: str
    reason: Reason = Reason.REFUSED_BY_SINK
    said: str = ""


@dataclass(slots=True, kw_only=True)
class Item(ABC):
    """What is queued and sent as one: a span, a log record, or several samples.

    `rows` (at least 1) is how many things that a destination accepts or refuses it stands for; `origin` is the first
    one's. `size` is its bytes on the wire before compression. Items of one `lane` (0 ≤ lane < the sink's `lanes`) are
    sent in order. `redelivered`: it may have been delivered before, by a predecessor or in a request whose answer was
    lost. `defect`: it cannot even be encoded, for this reason; it is never part of a request.
    """

    origin: Coordinates
    size: int
    rows: int = 1
    lane: int = 0
    redelivered: bool = False
    defect: str = ""

    @abstractmethod
    def dead_letter(self, *others: Self) -> bytes:
        """The item, with others of its raw record, in the form its raw topic (or destination) takes, to be replayed."""

    def singles(self) -> Sequence[Self]:
        """An item for each of its rows, in order."""
        return (self,)


I = TypeVar("I", bound=Item)  # noqa: E741


def unheard(said: str, refused: int) -> None:
    """Nobody wants to know."""


async def always() -> bool:
    """Whatever is there may be sent."""
    return True


@dataclass(slots=True)
class Request(Generic[I]):
    """Items in the form their destination takes.

    `parts` are the rows of each part that is attempted on its own, in order, as in an earlier outcome; () for a whole.
    `rejected` is told of each answer that refuses it, or a part of it, as a whole: what the destination said, and how
    many of its rows stand refused so far. To find those takes long where the destination is slow: before each part
    `wanted` says whether it may still be sent.
    """

    items: Sequence[I]
    body: bytes
    parts: Sequence[int] = ()
    rejected: Callable[[str, int], None] = unheard
    wanted: Callable[[], Awaitable[bool]] = always


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the rows of one request, which are counted through its items.

    `retry` are the indices to send again, for `reason` (a status or an error; a label of bounded cardinality; "" if
    they were no longer `wanted`), not before `retry_after` seconds, None when the destination named no time; `detail`
    is for the log. `parts`: so many of them, in order, are to be attempted on their own, for the request was being
    halved; () all together (so is what was added up). `lost` are those of them that may have been taken nonetheless:
    nothing, or an error of the server, answered; only a destination that refuses repetitions has to say it. Rows that
    `retry` does not name are settled: `accepted` and `already_delivered` of them are counted as such, the others as
    refused. `refused` is what the dead-letter queue gets: more than were refused when the destination told how many but
    not which.
    """

    accepted: int = 0
    already_delivered: int = 0
    refused: tuple[Refusal, ...] = ()
    retry: tuple[int, ...] = ()
    retry_after: float | None = None
    reason: str = ""
    detail: str = ""
    parts: tuple[int, ...] = ()
    lost: tuple[int, ...] = ()

    @classmethod
    def retry_all(cls, rows: int, reason: str, detail: str, wait: float | None = None, lost: bool = False) -> Outcome:
        """Send all `rows` again: none was accepted, or (`lost`) nobody knows."""
        every = tuple(range(rows))
        return cls(retry=every, retry_after=wait, reason=reason, detail=detail, lost=every if lost else ())

    @classmethod
    def unanswered(cls, rows: int, error: Unavailable) -> Outcome:
        """There was no answer to a request of so many."""
        return cls.retry_all(rows, NO_ANSWER, str(error), error.retry_after, error.asked)

    def shifted(self, by: int) -> Outcome:
        """The same with every index moved: the outcome of a part of a larger request."""
        return replace(
            self,
            refused=tuple(replace(r, index=r.index + by) for r in self.refused),
            retry=tuple(i + by for i in self.retry),
            lost=tuple(i + by for i in self.lost),
        )

    def __add__(self, other: Outcome) -> Outcome:
        """Both parts of a request; the longer `retry_after` and the first reason win."""
        waits = [w for w in (self.retry_after, other.retry_after) if w is not None]
        return Outcome(
            self.accepted + other.accepted,
            self.already_delivered + other.already_delivered,
            self.refused + other.refused,
            self.retry + other.retry,
            max(waits, default=None),
            self.reason or other.reason,
            self.detail or other.detail,
            lost=self.lost + other.lost,
        )


class Destination(ABC, Generic[I]):
    """One destination.

    A lane has at most `requests_per_lane` requests under way; with one, its items arrive in order. `warned` is told
    what it says of rows that it has accepted all the same.
    """

    lanes: int = 1
    requests_per_lane: int = 4
    warned: Callable[[str], None] = staticmethod(lambda said: None)

    @abstractmethod
    async def start(self) -> None:
        """Open connections and install what the destination needs. Raises Unavailable, to be tried again."""

    @abstractmethod
    async def close(self) -> None:
        """Close connections. May be called without or after a failed `start`."""

    @abstractmethod
    def encode(self, record: SourceRecord) -> list[I] | None:
        """The items of a record; records of one partition come in offset order.

        None: the record is part of something that later records complete. Its offset must not be committed
        before theirs. Raises ProtocolError for bytes that are not Tailrace's.
        """

    def forget(self, topic: str, partition: int) -> None:
        """Drop what `encode` holds back of this partition: it was revoked, or is read again from an older offset."""

    @abstractmethod
    def request(self, items: Sequence[I]) -> Request[I]:
        """Put items (at least one, all of one lane, in order) into one request."""

    @abstractmethod
    async def send(self, request: Request[I]) -> Outcome:
        """Send and wait for the answer. Raises Unavailable when there was none: the whole request is sent again."""


__all__ = [
    "Coordinates",
    "Destination",
    "Item",
    "Outcome",
    "Refusal",
    "Request",
    "Signal",
    "SourceRecord",
    "Unavailable",
]
