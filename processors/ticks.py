"""The aggregate protocol of one partition: points in, ticks out, as a pure state machine.

A *tick* holds every live series, cumulative, and the points offset that it includes; both are committed in one
transaction, so a tick is the whole state: the next owner loads one and goes on (docs/adr/0003). An instance lives for
one epoch; after a failed transaction a new one is loaded from the log (I3).

Time is the append time of the newest point; while no points come it goes on with the monotonic clock, so that
Prometheus gets a sample in each interval. Every tick is later than the one before. A backlog makes the ticks that it
would have made live: one for each interval of its append times. After a takeover without new points time goes on from
the last tick, until the acknowledgement of a tick tells the broker's time.

A broker's clock that was ahead takes the time of ticks with it. What the next tick is acknowledged with shows it: from
then on time is right again, and ticks come once in an interval as before, `SHORTEST` apart until they are overtaken.

If nothing was ever counted there are no ticks. Times are ms, `monotonic` is in seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import inf

from processors.cardinality import Limits
from processors.series import SeriesStore
from schemas.errors import Malformed, ProtocolError
from schemas.point import PackedBatch, Shape
from schemas.reasons import Reason
from schemas.sample import Tick

# Ticks are so many ms apart at least: between two of them a series that begins has its zero (sinks/remote_write.py).
SHORTEST = 2
AHEAD = 60_000  # ms by which one broker's clock may be ahead of another's; what is more is an error


@dataclass(frozen=True, slots=True)
class Refused:
    """A points record that goes to the dead-letter queue: another kind of metric has its name."""

    offset: int
    append: int
    value: bytes
    reason: str
    detail: str


@dataclass(frozen=True, slots=True)
class DueTick:
    """What goes into one transaction: the tick, and what it tells about since the last one.

    `tick.points` is the offset to commit. `overflow` is what was counted under `__overflow__` since the last tick, by
    metric; `dropped` are points that changed nothing, by reason; `without_place` is a metric whose points are among
    them because there are too many metrics ("": none). `refused` are the records that cannot be counted. How the limits
    stand is in the tick itself.
    """

    tick: Tick
    overflow: Mapping[str, float]
    dropped: Mapping[Reason, int]
    refused: tuple[Refused, ...] = ()
    without_place: str = ""


class Ticks:
    """Partition j of points and samples, for one epoch.

    `partitions` is M, `interval` in ms; `limits` and `shapes` as in `SeriesStore`.
    """

    def __init__(self, partitions: int, interval: int, limits: Limits, shapes: Mapping[str, Shape]) -> None:
        self._partitions = partitions
        self._interval = interval
        self._store = SeriesStore(limits, shapes)
        self._overflow: dict[str, float] = {}
        self._refused: list[Refused] = []
        self._next = 0
        self._number = 0
        self._last: int | None = None  # time of the last tick; of the first point before there was one
        self._began = 0  # when this interval began: at the last tick, by the clock as it is known now
        self._known: tuple[int, float] | None = None  # a time, and the monotonic clock when it was known
        self._changed = False
        self._append: int | None = None  # of the last point since the last tick
        self._ahead: int | None = None  # of the last point in the last tick
        self.idle = False  # no points came between the last two ticks

    # ---- taking over -------------------------------------------------------------------------------------

    def begin(self, offset: int) -> None:
        """The very first start: nothing was counted before `offset`."""
        self._next = offset

    def load(self, tick: Tick, committed: int, monotonic: float) -> None:
        """Go on after `tick`, whose transaction committed the points offset `committed`."""
        if tick.partitions != self._partitions:
            raise ProtocolError(
                f"tick {tick.number} was written with kafka.metric_partitions {tick.partitions}, this worker has "
                f"{self._partitions}: metrics would get a second owner"
            )
        if tick.points != committed:
            raise ProtocolError(
                f"the group's offset in points is {committed}, tick {tick.number} says {tick.points}: offsets of "
                "this group must not be reset by hand"
            )
        self._store.load(tick.blocks, tick.time_ms)
        self._next, self._number, self._last = tick.points, tick.number, tick.time_ms
        self._began = tick.time_ms
        self._known = (tick.time_ms, monotonic)

    def skip(self, offset: int) -> None:
        """What lies before `offset` is gone: the next tick comes without points too, and passes it."""
        if offset > self._next:
            self._next, self._changed = offset, True

    # ---- events ------------------------------------------------------------------------------------------

    @property
    def next_offset(self) -> int:
        """The next point to count."""
        return self._next

    def before(self, append: int) -> DueTick | None:
        """The tick to commit before a point that was appended at `append` is counted, if it opens an interval."""
        if self._last is None or self._known is None or not self._changed or append < self._began + self._interval:
            return None
        newest = self._known[0]
        return self._tick(newest, newest) if newest >= self._last + SHORTEST else None

    def point(self, offset: int, append: int, value: bytes, monotonic: float) -> None:
        """Count a points record; one that was counted already is ignored.

        Raises ProtocolError on anything but this pipeline's points.
        """
        if offset < self._next:
            return
        batch = PackedBatch.decode(value)
        try:
            overflow = self._store.apply(batch, append)
        except Malformed as error:
            overflow = 0.0
            self._refused.append(Refused(offset, append, value, error.reason, error.detail))
        if overflow:
            self._overflow[batch.metric] = self._overflow.get(batch.metric, 0.0) + overflow
        self._next, self._append = offset + 1, append
        self._changed = True
        if self._last is None:
            self._last = self._began = append
        self._know(append, monotonic)

    def due(self, monotonic: float) -> DueTick | None:
        """The tick of an interval that is over."""
        now = self._now(monotonic)
        if now is None or self._last is None or self.due_in(monotonic) > 0:
            return None
        return self._tick(max(now, self._last + SHORTEST), now)

    def due_in(self, monotonic: float) -> float:
        """Seconds until an interval is over; inf while there is nothing to tell."""
        now = self._now(monotonic)
        told = self._changed or len(self._store) > 0  # what was read may all have been refused: that is told too
        if now is None or self._last is None or not told:
            return inf
        return (self._began + self._interval - now) / 1000

    def last(self, monotonic: float) -> DueTick | None:
        """A tick before letting go, so that the next owner need not count again; None when nothing was counted."""
        now = self._now(monotonic)
        if now is None or self._last is None or not self._changed:
            return None
        return self._tick(max(now, self._last + SHORTEST), now)

    def acknowledged(self, append: int, monotonic: float, at_end: bool) -> None:
        """The tick returned last was appended at `append`.

        `at_end`: it was an idle one, and nothing was left to count before it. If there was, time is that of the points,
        even if none came for a while; but nothing is appended later than now. Where the points are still ahead of that,
        their broker and that of the ticks have clocks of their own, and time goes on with theirs.
        """
        now = self._now(monotonic)
        if now is not None and now > append + AHEAD and (self._ahead is None or self._ahead <= append + AHEAD):
            self._known, self._began = (append, monotonic), append
        elif at_end:
            self._know(append, monotonic)

    # ---- time --------------------------------------------------------------------------------------------

    def _know(self, append: int, monotonic: float) -> None:
        """Something was appended at `append` before `monotonic`: the broker's clock is not behind that.

        A clock that is set back does not hold the ticks up: time goes on from what it was.
        """
        now = self._now(monotonic)
        self._known = (append if now is None else max(append, now), monotonic)

    def _now(self, monotonic: float) -> int | None:
        """The latest time that the broker's clock has certainly reached; in a backlog, that of the points."""
        return None if self._known is None else self._known[0] + int((monotonic - self._known[1]) * 1000)

    def _tick(self, time: int, began: int) -> DueTick:
        """The tick of `time`, with which an interval begins: later than `began`, if a clock was ahead.

        What is new in it began an interval before it, however long there was nothing to tell: Prometheus refuses the
        zero of a series that is hours old, and no `increase` would see what was counted.
        """
        self._number += 1
        since, self._last, self._began = max(self._last or 0, time - self._interval), time, began
        self.idle, self._changed = not self._changed, False
        self._ahead, self._append = self._append, None
        overflow, self._overflow = self._overflow, {}
        refused, self._refused = tuple(self._refused), []
        dropped = self._store.dropped()  # before the tick: it forgets metrics of which nothing is left
        tick = Tick(self._number, time, self._next, self._partitions, self._store.blocks(time), since)
        for metric, number in self._store.folded_late().items():
            overflow[metric] = overflow.get(metric, 0.0) + number
        without_place, self._store.without_place = self._store.without_place, ""
        return DueTick(tick, overflow, dropped, refused, without_place)
