"""The verdicts that a partition remembers: for one late-span horizon of stream time after they were last needed.

Memory layout: one open-addressed table of (trace key, kept or dropped, bucket of stream time), 12 bytes an entry and
at most `_LOAD` full: about 16 bytes a verdict. What a kept one says lies in a dict beside it. A verdict lives in its
bucket and goes with it; a late row that still meets it moves it on, and then it is recorded again, so that what a
new owner loads (everything younger than the horizon) always covers every row between tail and head.
"""

from __future__ import annotations

from array import array

import cython

from schemas.decision import DROPPED, Verdict

BUCKETS_PER_HORIZON = 16  # expiry is late by at most a sixteenth of the horizon
_ENTRIES = 256  # for which there is room at first
_LOAD = 0.8  # a miss then looks at seven neighbours on average
_GROWTH = 1.2  # so that the table is never more than a sixth too large
_RANGE = 1 << 30  # of bucket numbers, relative to the first
_GOLDEN = cython.declare(cython.ulonglong, 0x9E3779B97F4A7C15)
_LOW_64 = cython.declare(cython.ulonglong, 0xFFFFFFFFFFFFFFFF)  # a literal of this size is Python's


@cython.cclass
class Verdicts:
    """Trace key → verdict, with expiry by stream time (ms)."""

    horizon = cython.declare(object, visibility="readonly")
    _kept: dict
    _pinned: dict  # bucket → the heads at which its newest row lay: every bucket that has entries
    _width: cython.longlong
    _first: cython.longlong  # the bucket that counts as 0
    _count: cython.Py_ssize_t
    _room: cython.Py_ssize_t
    _keys: cython.ulonglong[::1]
    _marks: cython.uint[::1]  # 0: free; else 1 + kept + 2 × bucket

    def __init__(self, horizon: int) -> None:
        self.horizon = horizon
        self._kept = {}
        self._pinned = {}
        self._width = max(1, horizon // BUCKETS_PER_HORIZON)
        self._first = 0
        self._count = 0
        self._make(_ENTRIES)

    def _make(self, entries: int) -> None:
        slots = int(entries / _LOAD) + 1
        self._room = entries
        self._keys = array("Q", bytes(8 * slots))
        self._marks = array("I", bytes(4 * slots))

    def __len__(self) -> int:
        return self._count

    def __contains__(self, key: cython.ulonglong) -> bool:
        return self._marks[self._slot(key)] != 0

    def get(self, key: cython.ulonglong) -> Verdict | None:
        """The verdict of a trace, None when undecided or forgotten."""
        mark: cython.uint = self._marks[self._slot(key)]
        if mark == 0:
            return None
        return DROPPED if mark & 1 else self._kept[key]

    def items(self) -> list[tuple[int, Verdict]]:
        """All verdicts by trace key."""
        slot: cython.Py_ssize_t
        found: list[tuple[int, Verdict]] = []
        for slot in range(len(self._marks)):
            if self._marks[slot] != 0:
                found.append((self._keys[slot], DROPPED if self._marks[slot] & 1 else self._kept[self._keys[slot]]))
        return found

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.exceptval(check=False)
    def _slot(self, key: cython.ulonglong) -> cython.Py_ssize_t:
        """Where a key is, or the free slot where it would be."""
        slots: cython.ulonglong = len(self._keys)
        slot: cython.ulonglong = ((((key * _GOLDEN) & _LOW_64) >> 32) * slots) >> 32
        while self._marks[slot] != 0 and self._keys[slot] != key:
            slot += 1
            if slot == slots:
                slot = 0
        return slot

    def put(self, key: cython.ulonglong, time: int, verdict: Verdict, heads: tuple[int, ...]) -> None:
        """Remember a verdict from stream time `time` on; the newest one of a trace wins.

        `heads` are the positions before which its rows lie: until the tails are there it is not forgotten.
        """
        bucket: cython.longlong = time // self._width
        if not self._count:
            self._first = bucket - _RANGE // 2
        if bucket - self._first < 0 or bucket - self._first >= _RANGE:
            self._move_range(bucket)
        if verdict.kept:
            self._kept[key] = verdict
        else:
            self._kept.pop(key, None)
        slot: cython.Py_ssize_t = self._slot(key)
        if self._marks[slot] == 0:
            if self._count >= self._room:
                self._copy(int(self._room * _GROWTH) + 1, frozenset())
                slot = self._slot(key)
            self._count += 1
            self._keys[slot] = key
        self._marks[slot] = 2 * (bucket - self._first) + (1 if verdict.kept else 0) + 1
        self._pin(bucket, heads)

    def drop(self, keys: array[int], times: array[int], heads: tuple[int, ...]) -> None:
        """Remember that these traces were dropped, each from its stream time on; as `put`."""
        theirs: cython.const[cython.ulonglong][::1] = keys
        at: cython.const[cython.longlong][::1] = times
        row: cython.Py_ssize_t
        slot: cython.Py_ssize_t
        bucket: cython.longlong
        last: cython.longlong = -(1 << 62)
        for row in range(len(theirs)):
            bucket = at[row] // self._width
            slot = self._slot(theirs[row])
            if bucket == last and self._marks[slot] == 0 and self._count < self._room:
                self._count += 1
                self._keys[slot] = theirs[row]
                self._marks[slot] = 2 * (bucket - self._first) + 1
            else:
                self.put(theirs[row], at[row], DROPPED, heads)
                last = bucket

    def _move_range(self, bucket: int) -> None:
        """Count buckets from another origin. What is too far from `bucket` for a mark moves to the edge."""
        shift = bucket - _RANGE // 2 - self._first
        self._first += shift
        for slot in range(len(self._marks)):
            mark = self._marks[slot]
            if mark:
                moved = min(max((mark - 1) // 2 - shift, 0), _RANGE - 1)
                self._marks[slot] = 2 * moved + 1 + (mark - 1) % 2
        pinned, self._pinned = self._pinned, {}
        for known, heads in pinned.items():
            self._pin(min(max(known, self._first), self._first + _RANGE - 1), heads)

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def missing(self, keys: array[int]) -> int:
        """The first place in `keys` of a trace without a verdict, -1 when all have one."""
        wanted: cython.const[cython.ulonglong][::1] = keys
        row: cython.Py_ssize_t
        for row in range(len(wanted)):
            if self._marks[self._slot(wanted[row])] == 0:
                return row
        return -1

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def late(
        self, keys: array[int], times: array[int], now: int | None, heads: tuple[int, ...], met: array[int]
    ) -> list[int]:
        """Which rows of a batch met their trace's verdict: met[row] = 1, else 0.

        `times` is the stream time of each row, `now` the clock, `heads` where the heads stand. Returns rows whose
        verdict may have to move on: `touch` it with the later of both times.
        """
        wanted: cython.const[cython.ulonglong][::1] = keys
        at: cython.const[cython.longlong][::1] = times
        out: cython.uchar[::1] = met
        half: cython.longlong = self.horizon // 2
        clock: cython.longlong = -(1 << 62) if now is None else now
        row: cython.Py_ssize_t
        mark: cython.uint
        bucket: cython.longlong
        last: cython.longlong = -1
        stale: list[int] = []
        if len(times) < len(keys) or len(met) < len(keys):
            raise IndexError("fewer times or flags than rows")
        for row in range(len(wanted)):
            mark = self._marks[self._slot(wanted[row])]
            out[row] = mark != 0
            if mark != 0:
                bucket = (mark - 1) // 2 + self._first
                if max(at[row], clock) > bucket * self._width + half:
                    stale.append(row)
                elif bucket != last:
                    self._pin(bucket, heads)
                    last = bucket
        return stale

    def touch(self, key: int, time: int, heads: tuple[int, ...]) -> bool:
        """A row at stream time `time` met its trace's verdict, while the heads stood at `heads`.

        True when the verdict moved on and has to be recorded again.
        """
        bucket = (self._marks[self._slot(key)] - 1) // 2 + self._first
        if time <= bucket * self._width + self.horizon // 2:
            self._pin(bucket, heads)
            return False
        verdict = self.get(key)
        assert verdict is not None
        self.put(key, time, verdict, heads)
        return True

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def kept(self, keys: array[int]) -> list[int]:
        """The places in `keys` of traces that were kept."""
        wanted: cython.const[cython.ulonglong][::1] = keys
        row: cython.Py_ssize_t
        mark: cython.uint
        rows: list[int] = []
        for row in range(len(wanted)):
            mark = self._marks[self._slot(wanted[row])]
            if mark != 0 and mark & 1 == 0:
                rows.append(row)
        return rows

    def expire(self, now: int, tails: tuple[int, ...]) -> None:
        """Forget what is older than the horizon at the tail's stream time `now`.

        A bucket whose verdicts were made for, or met by, rows that the tails have not passed yet stays.
        """
        limit = (now - self.horizon) // self._width
        gone = {
            bucket
            for bucket, heads in self._pinned.items()
            if bucket < limit and not any(tail < head for tail, head in zip(tails, heads, strict=False))
        }
        if gone:
            for bucket in gone:
                del self._pinned[bucket]
            self._copy(self._room, frozenset(gone))

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def _copy(self, room: int, gone: frozenset[int]) -> None:
        """Into a new table with room for so many entries, or for what is left; without the buckets that are gone."""
        keys: cython.ulonglong[::1] = self._keys
        marks: cython.uint[::1] = self._marks
        old: cython.Py_ssize_t
        slot: cython.Py_ssize_t
        left: cython.Py_ssize_t = 0
        first: cython.longlong = self._first
        for old in range(len(marks)):
            if marks[old] != 0:
                if gone and (marks[old] - 1) // 2 + first in gone:
                    if marks[old] & 1 == 0:
                        del self._kept[keys[old]]
                    marks[old] = 0
                else:
                    left += 1
        self._count = left
        self._make(max(_ENTRIES, min(room, int(left * _GROWTH) + 1)) if gone else room)
        for old in range(len(marks)):
            if marks[old] != 0:
                slot = self._slot(keys[old])
                self._keys[slot] = keys[old]
                self._marks[slot] = marks[old]

    def _pin(self, bucket: int, heads: tuple[int, ...]) -> None:
        known = self._pinned.get(bucket)
        if known is heads:
            return
        self._pinned[bucket] = heads if known is None else tuple(map(max, known, heads))
