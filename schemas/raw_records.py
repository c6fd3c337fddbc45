"""Consecutive records of a raw partition, in columns: of many small ones no object is made for each."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from operator import sub
from typing import ClassVar, NamedTuple, overload
from weakref import ReferenceType, ref

from schemas.columns import moved
from schemas.envelope import Places
from schemas.raw_message import UnreadBatch
from schemas.record_batch import RecordColumns

Unpack = Callable[[bytes], bytes]


@dataclass(slots=True, eq=False, weakref_slot=True)
class Packed:
    """Bytes as they were compressed, block by block, and how each is unpacked; to `size` bytes in all.

    What was asked for last stays unpacked until something else is: who has a piece of it will ask for the others.
    """

    blocks: Sequence[tuple[Unpack, bytes]]
    size: int
    _data: bytes | None = None
    _newest: ClassVar[ReferenceType[Packed] | None] = None

    def piece(self, start: int, end: int) -> bytes:
        """Some of the bytes, unpacked."""
        if self._data is None:
            if Packed._newest is not None and (newest := Packed._newest()) is not None:
                newest._data = None
            self._data = b"".join(unpack(block) for unpack, block in self.blocks)
            Packed._newest = ref(self)
        return self._data[start:end]


class Source(NamedTuple):
    """A piece of what is packed."""

    packed: Packed
    start: int
    end: int

    def read(self) -> bytes:
        """Its bytes, unpacked."""
        return self.packed.piece(self.start, self.end)

    @property
    def is_whole(self) -> bool:
        """Whether there is no other piece."""
        return self.end - self.start == self.packed.size

    @property
    def size(self) -> int:
        """Bytes that it takes while it is packed."""
        packed = self.packed
        return sum(len(block) for _, block in packed.blocks) * (self.end - self.start) // max(1, packed.size)


class RawRecord(NamedTuple):
    """One of them; the timestamp is in ms, a null is an empty value."""

    offset: int
    timestamp: int
    value: bytes


@dataclass(slots=True, eq=False)
class Records(Sequence[RawRecord]):
    """Record i has the value data[starts[i]:ends[i]], or is the batch `unread[i]`: then that is empty.

    No value is shorter than `shortest` bytes or longer than `longest`. Offsets only go up. `source` is what `data` was
    unpacked from, if that costs little.
    """

    data: bytes
    offsets: array[int]
    timestamps: array[int]
    starts: array[int]
    ends: array[int]
    shortest: int
    longest: int
    unread: Mapping[int, UnreadBatch] = field(default_factory=dict)
    source: Source | None = None

    @classmethod
    def of(cls, records: Iterable[tuple[int, int, bytes | None]]) -> Records:
        """From records: offset, timestamp and value."""
        found = list(records)
        values = [value or b"" for _, _, value in found]
        unread = {}
        if set(map(type, values)) - {bytes}:
            unread = {number: value for number, value in enumerate(values) if isinstance(value, UnreadBatch)}
            values = [b"" if number in unread else value for number, value in enumerate(values)]
        lengths = list(map(len, values))
        at = array("I", accumulate(lengths, initial=0))
        offsets, timestamps = array("q", [offset for offset, _, _ in found]), array("q", [time for _, time, _ in found])
        shortest, longest = min(lengths, default=0), max(lengths, default=0)
        return cls(b"".join(values), offsets, timestamps, at[:-1], at[1:], shortest, longest, unread)

    @classmethod
    def of_batch(
        cls,
        data: bytes,
        count: int,
        base_offset: int,
        last: int,
        timestamp: int,
        appended: bool,
        block: tuple[Unpack, bytes] | None,
    ) -> Records:
        """Those of a Kafka record batch, decompressed. Raises ValueError, OutOfOrder.

        Their offsets are relative to `base_offset`, up to `last`. Their timestamps are relative to `timestamp`, or it
        is that of all if it is when they were `appended`. `block` is what may be kept instead of the data: how it is
        unpacked, and from what.
        """
        found = RecordColumns()
        found.scan(data, count, base_offset, timestamp, last)
        timestamps = array("q", [timestamp]) * count if appended else found.timestamps
        source = Source(Packed([block], len(data)), 0, len(data)) if block else None
        extremes = found.shortest, found.longest
        return cls(data, found.offsets, timestamps, found.starts, found.ends, *extremes, source=source)

    @classmethod
    def joined(cls, several: Sequence[Records]) -> Records:
        """One behind the other, at least one."""
        if len(several) == 1:
            return several[0]
        sources = [each.source for each in several if each.source is not None and each.source.is_whole]
        offsets, timestamps, starts, ends = array("q"), array("q"), array("I"), array("I")
        unread: dict[int, UnreadBatch] = {}
        at = 0
        for each in several:
            unread |= {len(offsets) + number: value for number, value in each.unread.items()}
            offsets += each.offsets
            timestamps += each.timestamps
            starts += moved(each.starts, at)
            ends += moved(each.ends, at)
            at += len(each.data)
        shortest, longest = min(each.shortest for each in several), max(each.longest for each in several)
        data, source = b"".join(each.data for each in several), None
        if len(sources) == len(several):
            blocks = [block for source in sources for block in source.packed.blocks]
            source = Source(Packed(blocks, len(data)), 0, len(data))
        return cls(data, offsets, timestamps, starts, ends, shortest, longest, unread, source)

    def __len__(self) -> int:
        return len(self.offsets)

    @overload
    def __getitem__(self, place: int) -> RawRecord: ...
    @overload
    def __getitem__(self, place: slice) -> Records: ...
    def __getitem__(self, place: int | slice) -> RawRecord | Records:
        if isinstance(place, slice):
            first, after, step = place.indices(len(self))
            assert step == 1
            return self if after - first == len(self) else self._piece(first, max(first, after))
        number = range(len(self))[place]
        value = self.unread.get(number) or self.data[self.starts[number] : self.ends[number]]
        return RawRecord(self.offsets[number], self.timestamps[number], value)

    def __iter__(self) -> Iterator[RawRecord]:
        data, unread = self.data, self.unread
        values: Iterable[bytes] = (data[start:end] for start, end in zip(self.starts, self.ends, strict=True))
        if unread:
            values = (unread.get(number, value) for number, value in enumerate(values))
        return map(RawRecord, self.offsets, self.timestamps, values)

    def _piece(self, first: int, after: int) -> Records:
        """Some of them, with their bytes alone: the others may be gone before these are."""
        piece = slice(first, after)
        start, end = (self.starts[first], self.ends[after - 1]) if after > first else (0, 0)
        unread = {number - first: value for number, value in self.unread.items() if first <= number < after}
        return Records(
            self.data[start:end],
            self.offsets[piece],
            self.timestamps[piece],
            moved(self.starts[piece], -start),
            moved(self.ends[piece], -start),
            self.shortest,
            self.longest,
            unread,
            self.source and Source(self.source.packed, self.source.start + start, self.source.start + end),
        )

    def since(self, offset: int) -> Records:
        """Those from this offset on."""
        return self[bisect_left(self.offsets, offset) :]

    @property
    def after(self) -> int:
        """The offset behind the last."""
        return self.offsets[-1] + 1

    @property
    def places(self) -> Places:
        """Where and when they were written."""
        return Places(self.offsets, self.timestamps)

    def lengths(self) -> list[int]:
        """Bytes of each value."""
        return list(map(sub, self.ends, self.starts))

    def are_within(self, most: int) -> bool:
        """Whether all can be read as they are: `schemas.raw_message.checked` would pass each."""
        return self.shortest > 0 and self.longest <= most
