"""What of a partition is settled although something before it is not: the metadata of a sink's offsets.

A sink's offset stands before the first record that is not settled. What was accepted beyond it (a batch that is sent
again holds up what is behind it) is named here, so that the next owner does not send it again: `1 3-7 9:0-400` says
that of the offsets from the committed one on those from +3 to +6 are settled, and of record +9 the rows 0 to 399.
Where the offset has stood for long, `1 @1700000000 3-7` says since when. Whoever cannot read it knows of nothing, and
sends more.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

VERSION = "1"
MOST_CHARACTERS = 4000  # of Kafka's offset.metadata.max.bytes, 4096; what does not fit is not named
PART = re.compile(r"(?:(\d{1,18}):)?(\d{1,18})-(\d{1,18})", re.ASCII)
SINCE = re.compile(r"@(\d{1,12})", re.ASCII)


class Ranges:
    """A set of integers, as ranges that neither overlap nor touch, ascending. Each is given as [start, stop).

    >>> ranges = Ranges([(0, 4), (9, 12)])
    >>> ranges.add(4, 6)
    >>> list(ranges), 5 in ranges, 6 in ranges
    ([(0, 6), (9, 12)], True, False)
    """

    __slots__ = ("_bounds",)

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        self._bounds: list[int] = []  # start, stop, start, stop, …
        for start, stop in ranges:
            self.add(start, stop)

    def add(self, start: int, stop: int) -> None:
        """Nothing if it is empty."""
        bounds = self._bounds
        if bounds and bounds[-1] == start < stop:  # mostly they come in order
            bounds[-1] = stop
        elif start < stop:
            left, right = bisect_left(bounds, start), bisect_right(bounds, stop)
            bounds[left:right] = [start] * (left % 2 == 0) + [stop] * (right % 2 == 0)

    def __contains__(self, number: int) -> bool:
        return bisect_right(self._bounds, number) % 2 == 1

    def touches(self, start: int, stop: int) -> bool:
        """Whether any of [start, stop) is in it."""
        left = bisect_right(self._bounds, start)
        return left % 2 == 1 or left < bisect_left(self._bounds, stop)

    def behind(self, number: int) -> int:
        """The first number from this one on that is not in it."""
        at = bisect_right(self._bounds, number)
        return self._bounds[at] if at % 2 else number

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return zip(self._bounds[::2], self._bounds[1::2], strict=True)

    def __bool__(self) -> bool:
        return bool(self._bounds)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Ranges) and self._bounds == other._bounds

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __repr__(self) -> str:
        return f"Ranges({list(self)})"


@dataclass(slots=True)
class Settled:
    """`records` are ranges of offsets; `rows` those of records of which only some rows are settled, by offset.

    `since` the offset has stood where it is (Unix seconds), if that is long.
    """

    records: Ranges = field(default_factory=Ranges)
    rows: dict[int, Ranges] = field(default_factory=dict)
    since: int | None = None

    def add(self, other: Settled) -> None:
        """What is settled by either; `since` stays."""
        for start, stop in other.records:
            self.records.add(start, stop)
        for offset, ranges in other.rows.items():
            mine = self.rows.setdefault(offset, Ranges())
            for start, stop in ranges:
                mine.add(start, stop)

    def pack(self, position: int, most: int = MOST_CHARACTERS) -> str:
        """The metadata of an offset, of `most` characters; "" if there is nothing to say, or none of it fits."""
        found = [(start, f" {start - position}-{stop - position}") for start, stop in self.records if start > position]
        for offset, ranges in self.rows.items():
            if offset >= position and offset not in self.records:
                found += [(offset, f" {offset - position}:{start}-{stop}") for start, stop in ranges]
        if self.since is not None:
            found.append((-1, f" @{self.since}"))  # the first
        text = VERSION
        for _, part in sorted(found, key=lambda one: one[0]):
            if len(text) + len(part) > most:
                break
            text += part
        return "" if text == VERSION else text

    @classmethod
    def unpack(cls, metadata: str | None, position: int) -> Settled:
        """Of any metadata: nothing of what is not exactly this format."""
        version, *parts = (metadata or "").split(" ")
        since = SINCE.fullmatch(parts[0]) if parts else None
        matches = [PART.fullmatch(part) for part in parts[since is not None :]]
        settled = cls(since=None if since is None else int(since[1]))
        if version != VERSION:
            return cls()
        for match in matches:
            if match is None or int(match[2]) >= int(match[3]):
                return cls()
            start, stop = int(match[2]), int(match[3])
            if match[1] is None:
                settled.records.add(position + start, position + stop)
            else:
                settled.rows.setdefault(position + int(match[1]), Ranges()).add(start, stop)
        return settled
