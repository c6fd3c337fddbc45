"""The verdicts that a partition remembers: for one late-span horizon of stream time after they were last needed.

A verdict lives in a bucket of stream time and goes with it; a late row that still meets it moves it on, and then it is
recorded again, so that what a new owner loads (everything younger than the horizon) always covers every row between
tail and head.

Memory layout: one open-addressed table of trace keys with 32 bits each: a bucket and an *outcome*. Outcomes are
numbered: what a verdict says but for the spans that logs named, 0 for dropped. So a verdict takes 12 bytes, kept or
not, 14.2 as the table is never filled beyond `_LOAD` nor more than a sixteenth too large. Named spans are 12 bytes each
beside it, those of a trace together, and found by a second such table. tests/processors/sampling/test_memory.py has
the bound of 16 bytes a verdict.
"""

from __future__ import annotations

from array import array

import cython

from schemas.columns import grown
from schemas.decision import DROPPED, Enrichment, Verdict
from schemas.ids import HASH_FACTOR

BUCKETS_PER_HORIZON = 16  # expiry is late by at most a sixteenth of the horizon
_ENTRIES = 256  # for which there is room at first
_LOAD = 0.9  # in order of the hash a miss then looks at six slots on average
_SPARE = 64  # slots behind the last home: the greatest hashes are pushed there
_GROWTH = 16  # a table grows by one part in so many: in order, it is copied at the speed of memory
_RANGE = 1 << 16  # of bucket numbers, relative to the origin; 0 is none
_APART = 0xFFFF  # the outcome of a verdict whose own is not numbered: there are more than numbers
_FACTOR = cython.declare(cython.ulonglong, HASH_FACTOR)
_INVERSE = cython.declare(cython.ulonglong, pow(HASH_FACTOR, -1, 1 << 64))
_LOW_64 = cython.declare(cython.ulonglong, 0xFFFFFFFFFFFFFFFF)  # a literal of this size is Python's
_MORE = cython.declare(cython.uint, 1 << 31)  # beside the name of a span: another one of its trace follows

_BUCKET = cython.declare(cython.int, 16)  # bits behind the bucket: those of the outcome
_OUTCOME = cython.declare(cython.uint, 0xFFFF)
_C_RANGE = cython.declare(cython.longlong, _RANGE)
_C_APART = cython.declare(cython.uint, _APART)


@cython.cclass
class KeyTable:
    """Trace key → a 32-bit number other than 0.

    Open addressing in the order of the hash (Amble & Knuth 1974), which is a multiplication that can be undone:
    `hashes` ascend, with free slots between, in which there is the greatest hash and 0. A search ends at the first hash
    that is not smaller. A number that is set to 0 leaves its slot at the next `resize`.
    """

    hashes: cython.ulonglong[::1]
    numbers: cython.uint[::1]
    count: cython.Py_ssize_t
    room: cython.Py_ssize_t
    homes: cython.ulonglong

    def __init__(self) -> None:
        self.hashes, self.numbers = array("Q"), array("I")
        self.resize(_ENTRIES)

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.exceptval(check=False)
    def slot(self, hashed: cython.ulonglong) -> cython.Py_ssize_t:
        """Where a hash is or belongs."""
        slot: cython.Py_ssize_t = ((hashed >> 32) * self.homes) >> 32
        while self.hashes[slot] < hashed:
            slot += 1
        return slot

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.exceptval(check=False)
    def number(self, key: cython.ulonglong) -> cython.uint:
        """Of a key; 0: none."""
        hashed: cython.ulonglong = (key * _FACTOR) & _LOW_64
        slot: cython.Py_ssize_t = self.slot(hashed)
        return self.numbers[slot] if self.hashes[slot] == hashed else 0

    @cython.cfunc
    @cython.exceptval(check=False)
    def key(self, slot: cython.Py_ssize_t) -> cython.ulonglong:
        """Whose number this is."""
        return (self.hashes[slot] * _INVERSE) & _LOW_64

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.exceptval(-1)
    def put(self, key: cython.ulonglong, number: cython.uint) -> cython.int:
        """Set a key's number."""
        hashed: cython.ulonglong = (key * _FACTOR) & _LOW_64
        slot: cython.Py_ssize_t = self.slot(hashed)
        end: cython.Py_ssize_t
        if self.hashes[slot] != hashed or self.numbers[slot] == 0:
            end = self._free_from(slot)
            if self.count >= self.room or end + 1 == len(self.numbers):  # the last slot stays free: searches end there
                self.resize(max(self.room, self.count + self.count // _GROWTH))
                slot = self.slot(hashed)
                end = self._free_from(slot)
            self.count += 1
            while end > slot:
                self.hashes[end] = self.hashes[end - 1]
                self.numbers[end] = self.numbers[end - 1]
                end -= 1
            self.hashes[slot] = hashed
        self.numbers[slot] = number
        return 0

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.exceptval(check=False)
    def _free_from(self, slot: cython.Py_ssize_t) -> cython.Py_ssize_t:
        while self.numbers[slot] != 0:
            slot += 1
        return slot

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.exceptval(-1)
    def resize(self, room: cython.Py_ssize_t) -> cython.int:
        """Into a new table with room for so many, which are at least those that there are."""
        hashes: cython.ulonglong[::1] = self.hashes
        numbers: cython.uint[::1] = self.numbers
        old: cython.Py_ssize_t
        slot: cython.Py_ssize_t
        end: cython.Py_ssize_t = 0
        self.room = room
        self.homes = int(room / _LOAD) + 1
        self.count = 0
        for old in range(len(numbers)):
            if numbers[old] != 0:
                end = max(end, cython.cast(cython.Py_ssize_t, ((hashes[old] >> 32) * self.homes) >> 32)) + 1
        end = max(end, cython.cast(cython.Py_ssize_t, self.homes)) + _SPARE
        self.hashes = array("Q", [_LOW_64]) * end
        self.numbers = array("I", [0]) * end
        slot = 0
        for old in range(len(numbers)):
            if numbers[old] != 0:
                slot = max(slot, cython.cast(cython.Py_ssize_t, ((hashes[old] >> 32) * self.homes) >> 32))
                self.hashes[slot] = hashes[old]
                self.numbers[slot] = numbers[old]
                self.count += 1
                slot += 1
        return 0


@cython.cclass
class NamedSpans:
    """Trace key → the spans of a kept trace that its logs named: for each what such a log is shown with.

    Rows are added behind the others; those of traces that were forgotten go at the next `keep`.
    """

    _first: KeyTable  # 1 + the number of a trace's first row
    _rows: cython.Py_ssize_t
    _ids: cython.ulonglong[::1]
    _names: cython.uint[::1]
    _enrichments: list
    _numbers: dict

    def __init__(self) -> None:
        self._first = KeyTable()
        self._rows = 0
        self._ids, self._names = array("Q", bytes(8 * _ENTRIES)), array("I", bytes(4 * _ENTRIES))
        self._enrichments, self._numbers = [], {}

    def put(self, key: cython.ulonglong, spans: dict[bytes, Enrichment]) -> None:
        """Those of a trace, instead of any that it had."""
        row: cython.Py_ssize_t = self._rows
        if not spans:
            if self._first.number(key) != 0:
                self._first.put(key, 0)
            return
        self._first.put(key, row + 1)
        for span, name in spans.items():
            number = self._numbers.setdefault(name, len(self._enrichments))
            if number == len(self._enrichments):
                self._enrichments.append(name)
            self._add(int.from_bytes(span, "big"), number | _MORE)
        self._names[self._rows - 1] &= ~_MORE

    def get(self, key: cython.ulonglong) -> dict[bytes, Enrichment]:
        """Those of a trace, by span id."""
        row: cython.Py_ssize_t = self._first.number(key)
        found: dict[bytes, Enrichment] = {}
        more: cython.bint = row != 0
        span: object
        while more:
            span = self._ids[row - 1]
            found[span.to_bytes(8, "big")] = self._enrichments[self._names[row - 1] & ~_MORE]
            more = self._names[row - 1] & _MORE != 0
            row += 1
        return found

    @cython.cfunc
    @cython.exceptval(-1)
    def _add(self, span: cython.ulonglong, name: cython.uint) -> cython.int:
        room: cython.Py_ssize_t = len(self._ids)
        if self._rows == room:
            self._ids = grown(self._ids, room + room // _GROWTH)
            self._names = grown(self._names, room + room // _GROWTH)
        self._ids[self._rows] = span
        self._names[self._rows] = name
        self._rows += 1
        return 0

    @cython.cfunc
    @cython.exceptval(-1)
    def keep(self, keys: KeyTable) -> cython.int:
        """Forget the traces that have no number there; names that no trace holds any more go too."""
        ids: cython.ulonglong[::1] = self._ids
        names: cython.uint[::1] = self._names
        moved: cython.uint[::1] = array("I", bytes(4 * (len(self._enrichments) + 1)))  # 1 + a name's new number
        enrichments: list = self._enrichments
        slot: cython.Py_ssize_t
        row: cython.Py_ssize_t
        name: cython.uint
        left: cython.Py_ssize_t = 0
        self._rows = 0
        self._ids, self._names = array("Q", bytes(8 * _ENTRIES)), array("I", bytes(4 * _ENTRIES))
        self._enrichments, self._numbers = [], {}
        for slot in range(len(self._first.numbers)):
            if self._first.numbers[slot] == 0:
                continue
            if keys.number(self._first.key(slot)) == 0:
                self._first.numbers[slot] = 0
                continue
            left += 1
            row = self._first.numbers[slot] - 1
            self._first.numbers[slot] = self._rows + 1
            while True:
                name = names[row] & ~_MORE
                if moved[name] == 0:
                    self._numbers[enrichments[name]] = len(self._enrichments)
                    self._enrichments.append(enrichments[name])
                    moved[name] = len(self._enrichments)
                self._add(ids[row], (moved[name] - 1) | (names[row] & _MORE))
                if names[row] & _MORE == 0:
                    break
                row += 1
        self._first.resize(max(_ENTRIES, left))
        return 0


@cython.cclass
class Verdicts:
    """Trace key → verdict, with expiry by stream time (ms)."""

    horizon = cython.declare(object, visibility="readonly")
    _pinned: dict  # bucket → the heads at which its newest row lay: every bucket that has entries
    _width: cython.longlong
    _origin: cython.longlong  # the bucket that counts as 0
    _table: KeyTable  # a bucket, relative to the origin, and an outcome
    _named: NamedSpans
    _outcomes: list  # verdicts without named spans
    _numbers: dict  # (policy, threshold, root) → outcome
    _apart: dict  # trace key → verdict without named spans, where the outcome is _APART
    _told: cython.ulonglong[::1]  # by outcome: its place among all that `kept` ever listed
    _tellings: cython.ulonglong  # how many those are, so that none of them counts again

    def __init__(self, horizon: int) -> None:
        self.horizon = horizon
        self._pinned = {}
        self._width = max(1, horizon // BUCKETS_PER_HORIZON)
        self._origin = 0
        self._table = KeyTable()
        self._named = NamedSpans()
        self._outcomes, self._numbers, self._apart = [DROPPED], {}, {}
        self._told = array("Q", bytes(8))
        self._tellings = 0

    def __len__(self) -> int:
        return self._table.count

    def __contains__(self, key: cython.ulonglong) -> bool:
        return self._table.number(key) != 0

    def get(self, key: cython.ulonglong) -> Verdict | None:
        """The verdict of a trace, None when undecided or forgotten."""
        mark: cython.uint = self._table.number(key)
        if mark == 0:
            return None
        verdict = self._outcome(key, mark & _OUTCOME)
        if verdict.kept and (spans := self._named.get(key)):
            return Verdict(True, verdict.policy, verdict.threshold, verdict.root, spans)
        return verdict

    @cython.cfunc
    def _outcome(self, key: cython.ulonglong, outcome: cython.uint) -> Verdict:
        found: Verdict = self._apart[key] if outcome == _C_APART else self._outcomes[outcome]
        return found

    def items(self) -> list[tuple[int, Verdict]]:
        """All verdicts by trace key."""
        keys = [self._table.key(slot) for slot in range(len(self._table.numbers)) if self._table.numbers[slot] != 0]
        return [(key, verdict) for key in keys if (verdict := self.get(key)) is not None]

    def put(self, key: cython.ulonglong, time: int, verdict: Verdict, heads: tuple[int, ...]) -> None:
        """Remember a verdict from stream time `time` on; the newest one of a trace wins.

        `heads` are the positions before which its rows lie: until the tails are there it is not forgotten.
        """
        outcome: cython.uint = self._number(verdict)
        if outcome == _C_APART:
            self._apart[key] = Verdict(True, verdict.policy, verdict.threshold, verdict.root)
        elif self._apart:
            self._apart.pop(key, None)
        self._named.put(key, verdict.spans)
        self._mark(key, time, outcome, heads)

    @cython.cfunc
    @cython.exceptval(-1)
    def _mark(self, key: cython.ulonglong, time: int, outcome: cython.uint, heads: tuple[int, ...]) -> cython.int:
        bucket: cython.longlong = time // self._width
        if not self._table.count:
            self._origin = bucket - _C_RANGE // 2
        if bucket - self._origin <= 0 or bucket - self._origin >= _C_RANGE:
            self._move_origin(bucket)
        self._table.put(key, (bucket - self._origin) << _BUCKET | outcome)
        self._pin(bucket, heads)
        return 0

    def _number(self, verdict: Verdict) -> int:
        """Of its outcome."""
        if not verdict.kept:
            return 0
        outcome = verdict.policy, verdict.threshold, verdict.root
        number = self._numbers.get(outcome)
        if number is None:
            number = len(self._outcomes)
            if number >= _APART:
                return _APART
            self._numbers[outcome] = number
            self._outcomes.append(Verdict(True, *outcome) if verdict.spans else verdict)
        return number

    def drop(self, keys: array[int], times: array[int], heads: tuple[int, ...]) -> None:
        """Remember that these traces were dropped, each from its stream time on; as `put`."""
        theirs: cython.const[cython.ulonglong][::1] = keys
        at: cython.const[cython.longlong][::1] = times
        row: cython.Py_ssize_t
        bucket: cython.longlong
        last: cython.longlong = -(1 << 62)
        for row in range(len(theirs)):
            bucket = at[row] // self._width
            if bucket == last and self._table.number(theirs[row]) == 0:
                self._table.put(theirs[row], (bucket - self._origin) << _BUCKET)
            else:
                self.put(theirs[row], at[row], DROPPED, heads)
                last = bucket

    def _move_origin(self, bucket: int) -> None:
        """Count buckets from another origin. What is too far from `bucket` for a number moves to the edge."""
        shift = bucket - _RANGE // 2 - self._origin
        self._origin += shift
        for slot in range(len(self._table.numbers)):
            mark = self._table.numbers[slot]
            if mark:
                moved = min(max(mark // _RANGE - shift, 1), _RANGE - 1)
                self._table.numbers[slot] = moved * _RANGE + mark % _RANGE
        pinned, self._pinned = self._pinned, {}
        for known, heads in pinned.items():
            self._pin(min(max(known, self._origin + 1), self._origin + _RANGE - 1), heads)

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def missing(self, keys: array[int]) -> int:
        """The first place in `keys` of a trace without a verdict, -1 when all have one."""
        wanted: cython.const[cython.ulonglong][::1] = keys
        row: cython.Py_ssize_t
        for row in range(len(wanted)):
            if self._table.number(wanted[row]) == 0:
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
            mark = self._table.number(wanted[row])
            out[row] = mark != 0
            if mark != 0:
                bucket = (mark >> _BUCKET) + self._origin
                if max(at[row], clock) > bucket * self._width + half:
                    stale.append(row)
                elif bucket != last:
                    self._pin(bucket, heads)
                    last = bucket
        return stale

    def touch(self, key: cython.ulonglong, time: int, heads: tuple[int, ...]) -> bool:
        """A row at stream time `time` met its trace's verdict, while the heads stood at `heads`.

        True when the verdict moved on and has to be recorded again.
        """
        mark: cython.uint = self._table.number(key)
        bucket: cython.longlong = (mark >> _BUCKET) + self._origin
        if time <= bucket * self._width + self.horizon // 2:
            self._pin(bucket, heads)
            return False
        self._mark(key, time, mark & _OUTCOME, heads)
        return True

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def kept(self, keys: array[int]) -> tuple[array[int], array[int], list[Verdict]]:
        """The places in `keys` of traces that were kept, and which of the verdicts in the list each has.

        Verdicts come without the spans that logs named.
        """
        wanted: cython.const[cython.ulonglong][::1] = keys
        places, which = array("I", bytes(4 * len(keys))), array("I", bytes(4 * len(keys)))
        rows: cython.uint[::1] = places
        of: cython.uint[::1] = which
        before: cython.ulonglong = self._tellings
        verdicts: list[Verdict] = []
        count: cython.Py_ssize_t = 0
        row: cython.Py_ssize_t
        outcome: cython.uint
        if len(self._outcomes) > len(self._told):
            self._told = grown(self._told, 2 * len(self._outcomes))
        for row in range(len(wanted)):
            outcome = self._table.number(wanted[row]) & _OUTCOME
            if outcome == 0:
                continue
            rows[count] = row
            if outcome == _C_APART:
                verdicts.append(self._apart[wanted[row]])
                of[count] = len(verdicts) - 1
            else:
                if self._told[outcome] <= before:
                    verdicts.append(self._outcomes[outcome])
                    self._told[outcome] = before + len(verdicts)
                of[count] = self._told[outcome] - before - 1
            count += 1
        self._tellings += len(verdicts)
        return places[:count], which[:count], verdicts

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
            self._forget(gone)

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def _forget(self, gone: set[int]) -> None:
        """Buckets, and what only their verdicts said; the outcomes that are left are numbered anew."""
        numbers: cython.uint[::1] = self._table.numbers
        slot: cython.Py_ssize_t
        outcome: cython.uint
        going: cython.uchar[::1] = bytearray(_RANGE)
        moved: cython.uint[::1] = array("I", bytes(4 * _RANGE))  # an outcome's new number
        outcomes: list[Verdict] = self._outcomes
        left: cython.Py_ssize_t = 0
        self._outcomes, self._numbers = [DROPPED], {}
        for bucket in gone:
            going[bucket - self._origin] = 1
        for slot in range(len(numbers)):
            if numbers[slot] == 0:
                continue
            outcome = numbers[slot] & _OUTCOME
            if going[numbers[slot] >> _BUCKET]:
                if outcome == _C_APART:
                    del self._apart[self._table.key(slot)]
                numbers[slot] = 0
                continue
            left += 1
            if outcome == 0 or outcome == _C_APART:
                continue
            if moved[outcome] == 0:
                verdict = outcomes[outcome]
                moved[outcome] = len(self._outcomes)
                self._numbers[verdict.policy, verdict.threshold, verdict.root] = len(self._outcomes)
                self._outcomes.append(verdict)
            numbers[slot] += moved[outcome] - outcome
        self._table.resize(max(_ENTRIES, left))
        self._named.keep(self._table)

    def _pin(self, bucket: int, heads: tuple[int, ...]) -> None:
        known = self._pinned.get(bucket)
        if known is heads:
            return
        self._pinned[bucket] = heads if known is None else tuple(map(max, known, heads))
