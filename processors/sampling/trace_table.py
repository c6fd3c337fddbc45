"""The undecided traces of a partition: what is known of each, and when it is due.

A trace is due `decision_wait` of stream time after its first record, or earlier: `after_root` after its root span.
Raw partitions drain unevenly, so rows of a partition that ran ahead arrive before older rows of another: evidence that
may lie beyond the deadline is kept apart (*ahead*) until the deadline is certain, and then counts only if it lies
before. So a backlog is decided as live traffic would have been. In live traffic nothing is ever kept apart, as long as
the raw partitions are read within the shorter of the two waits of each other.

Evidence is a bit set, extremes and counts, never spans. All of it is a join (or, min, max) or a sum, so it does not
depend on the order in which spans and logs arrive, and evidence gathered apart merges to the same.

Memory layout: a trace is a *record* of three flat arrays, `_wide` (64-bit unsigned: BITS words and those of the bit
set), `_times` (64-bit signed, ms of stream time) and `_small` (32-bit); free records are linked. An open-addressed
table of record numbers finds a trace by its key. Spans that a log may name are 12 bytes each, linked, at most
SPANS_PER_TRACE a trace. All grow by a sixteenth. A trace takes 116 bytes, about 6 to be found, 12 for each of its
spans: below 200 with five (tests/processors/sampling/test_memory.py). Evidence that is ahead is a
record for each ms, in a splay tree a trace: a row costs O(log n) in any order, and hardly anything by its time, however
many raw partitions the trace is on.
`sets` holds what keys are made of, by record (processors.sampling.features); None while no policy asks.

Deadlines are a hierarchical timing wheel (Varghese & Lauck, SOSP 1987): a level for each 6 bits of a deadline that
differ from the wheel's position, 64 linked lists a level. A trace moves down at most once a level, usually twice in
all, and no other trace is looked at for it.
"""

from __future__ import annotations

from array import array
from typing import Any

import cython

from processors.correlation import NAMED_PER_TRACE, SPANS_PER_TRACE, enrichment
from processors.sampling.evidence import Evidence
from processors.sampling.features import FeatureSets, SpanFeatures
from processors.sampling.span_bits import SpanBits
from processors.span_labels import SpanLabels
from schemas.columns import grown
from schemas.decision import Enrichment
from schemas.ids import HASH_FACTOR
from schemas.otlp_scan import (
    END_NS,
    LOG_CELLS,
    PARENT_SPAN_ID,
    SEVERITY,
    SIZE,
    SPAN_ID,
    START_NS,
    STATUS,
    TRACE_ID,
    LogColumns,
    SpanColumns,
)

ERROR = 2  # Span.Status.StatusCode
NAMES = 1 << 14  # distinct names after which those that no trace holds any more are looked for, at least
_RECORDS = 256  # for which there is room at first
_LOAD = 0.8  # of the table of record numbers
_GROWTH = cython.declare(cython.Py_ssize_t, 16)  # records and spans grow by one part in so many
U64_MAX = (1 << 64) - 1

# A record: words of `_wide`, …
KEY = 0
HIGH = 1  # the high half of the trace id: the greatest seen
MIN_START = 2
MAX_END = 3
RANDOM = 4
_ROOT_START = cython.declare(cython.Py_ssize_t, 5)
BYTES = 6  # of its spans
BITS = 7
# … of `_times`, …
_FIRST = cython.declare(cython.Py_ssize_t, 0)
_LAST = cython.declare(cython.Py_ssize_t, 1)
_ROOT = cython.declare(cython.Py_ssize_t, 2)  # with `after_root` alone
# … and of `_small`.
SPANS = 0
_LOGS = cython.declare(cython.Py_ssize_t, 1)
_ROOT_NAME = cython.declare(cython.Py_ssize_t, 2)  # -1: no root was seen
_ENTRIES = cython.declare(cython.Py_ssize_t, 3)  # the newest remembered span, -1: none
_NAMED = cython.declare(cython.Py_ssize_t, 4)  # the newest span id that a log named, -1: none
_COUNTS = cython.declare(cython.Py_ssize_t, 5)  # a byte each: remembered spans, ordinary ones, span ids that logs named
_NEXT = cython.declare(cython.Py_ssize_t, 6)  # in a list of the wheel, or of free records
_BEFORE = cython.declare(cython.Py_ssize_t, 7)  # in the wheel; negative: the first of list -1 - _BEFORE, or _LISTED
_AHEAD = cython.declare(cython.Py_ssize_t, 8)  # the top of a tree, -1: nothing is ahead
SMALL = 9  # numbers a record
# Evidence ahead remembers no spans: in its place are the records of earlier and of later times, -1: none.
_EARLIER = cython.declare(cython.Py_ssize_t, 3)
_LATER = cython.declare(cython.Py_ssize_t, 4)

# The same as C constants, for the loops below.
_KEY = cython.declare(cython.Py_ssize_t, KEY)
_HIGH = cython.declare(cython.Py_ssize_t, HIGH)
_MIN_START = cython.declare(cython.Py_ssize_t, MIN_START)
_MAX_END = cython.declare(cython.Py_ssize_t, MAX_END)
_RANDOM = cython.declare(cython.Py_ssize_t, RANDOM)
_BYTES = cython.declare(cython.Py_ssize_t, BYTES)
_BITS = cython.declare(cython.Py_ssize_t, BITS)
_SPANS = cython.declare(cython.Py_ssize_t, SPANS)
_SMALL = cython.declare(cython.Py_ssize_t, SMALL)
_DUE = cython.declare(cython.Py_ssize_t, 1024)  # traces listed as due at a time
_SHORT = cython.declare(cython.Py_ssize_t, 64)  # traces that are put in order one by one, others as Python sorts
_LISTED = cython.declare(cython.int, -(1 << 30))
_DIGIT = cython.declare(cython.int, 6)  # bits
_LISTS = cython.declare(cython.Py_ssize_t, 64)  # a level
_LEVELS = cython.declare(cython.Py_ssize_t, 11)  # for times of 63 bits
_REMEMBERED = cython.declare(cython.int, 1)  # units in _COUNTS
_ORDINARY = cython.declare(cython.int, 1 << 8)  # remembered, neither failed nor named by a log
_NAMINGS = cython.declare(cython.int, 1 << 16)

_FACTOR = cython.declare(cython.ulonglong, HASH_FACTOR)
_NO_TIME = cython.declare(cython.longlong, -(1 << 63))
_BEYOND = cython.declare(cython.longlong, (1 << 63) - 1)  # the time of what is no evidence
_FAILED = cython.declare(cython.uint, 1 << 31)  # beside the name of a remembered span
_NOBODY = cython.declare(cython.uint, 0xFFFFFFFF)
_SPAN_ENTRIES = cython.declare(cython.int, SPANS_PER_TRACE)
_NAMED_ENTRIES = cython.declare(cython.int, NAMED_PER_TRACE)
_U64_MAX = cython.declare(cython.ulonglong, U64_MAX)

_C_TRACE_ID = cython.declare(cython.Py_ssize_t, TRACE_ID)
_C_SPAN_ID = cython.declare(cython.Py_ssize_t, SPAN_ID)
_C_PARENT = cython.declare(cython.Py_ssize_t, PARENT_SPAN_ID)
_C_START = cython.declare(cython.Py_ssize_t, START_NS)
_C_END = cython.declare(cython.Py_ssize_t, END_NS)
_C_STATUS = cython.declare(cython.Py_ssize_t, STATUS)
_C_SIZE = cython.declare(cython.Py_ssize_t, SIZE)
_C_SEVERITY = cython.declare(cython.Py_ssize_t, SEVERITY)
_C_LOG_CELLS = cython.declare(cython.Py_ssize_t, LOG_CELLS)
_C_ERROR = cython.declare(cython.ulonglong, ERROR)


@cython.cclass
class TraceTable:
    """Trace key → undecided trace, with a list for each deadline.

    Waits in ms; without `after_root` root spans are spans like others. `words` is the width of the bit sets; `keyed`:
    features of spans are gathered too. Unless `logged` there are no logs, and nobody asks for the spans that they name.
    """

    sets = cython.declare(object, visibility="readonly")
    _row_records: object

    decision_wait = cython.declare(cython.longlong, visibility="readonly")
    after_root = cython.declare(object, visibility="readonly")
    _after_root: cython.longlong
    _rooted: cython.bint
    _logged: cython.bint
    due_records = cython.declare(object, visibility="readonly")
    due_keys = cython.declare(object, visibility="readonly")
    due_deadlines = cython.declare(object, visibility="readonly")
    due_times = cython.declare(object, visibility="readonly")
    _due_records: cython.int[::1]
    _due_keys: cython.ulonglong[::1]
    _due_deadlines: cython.longlong[::1]
    _due_times: cython.longlong[::1]
    _due_count: cython.Py_ssize_t
    _words: cython.Py_ssize_t
    _width: cython.Py_ssize_t
    _wide: cython.ulonglong[::1]
    _times: cython.longlong[::1]
    _small: cython.int[::1]
    _time_width: cython.Py_ssize_t
    _slots: cython.uint[::1]
    _count: cython.Py_ssize_t
    _used: cython.Py_ssize_t  # records ever taken; those behind are untouched
    _free: cython.int
    _wheel: cython.int[::1]  # the first record of each list
    _position: cython.longlong  # of the wheel: no trace that waits is due before
    _in_order: cython.longlong  # the position whose list is sorted, _NO_TIME: none
    _hashes: cython.uint[::1]  # of a remembered span `_hash` of its id, of a span id that a log named the low half, …
    _names: cython.uint[::1]  # … and here its name, or the high half
    _links: cython.int[::1]
    _spans_used: cython.Py_ssize_t
    _free_span: cython.int
    _enrichments: list
    _numbers: dict
    _labelled: cython.uint[::1]  # the name of each label set of `_generation`
    _labels: cython.Py_ssize_t
    _most_names: cython.Py_ssize_t  # before those that no trace holds any more are looked for
    _generation: object

    def __init__(
        self,
        decision_wait: int,
        after_root: int | None = None,
        words: int = 1,
        keyed: bool = False,
        logged: bool = True,
    ) -> None:
        self._logged = logged
        self.sets = FeatureSets() if keyed else None
        self._row_records = array("i", bytes(4 * _RECORDS))
        self.decision_wait = decision_wait
        self.after_root = after_root
        self._rooted = after_root is not None
        self._after_root = after_root or 0
        self._words = words
        self._width = _BITS + words
        self._time_width = 3 if self._rooted else 2
        self._wide = array("Q", bytes(8 * self._width * _RECORDS))
        self._times = array("q", bytes(8 * self._time_width * _RECORDS))
        self._small = array("i", bytes(4 * _SMALL * _RECORDS))
        self._slots = array("I", [_NOBODY]) * (2 * _RECORDS)
        self._count = 0
        self._used = 0
        self._free = -1
        self._wheel = array("i", [-1]) * (_LEVELS * _LISTS)
        self._position = 0
        self._in_order = _NO_TIME
        self._due_count = 0
        self.due_records = self._due_records = array("i", bytes(4 * _DUE))
        self.due_keys = self._due_keys = array("Q", bytes(8 * _DUE))
        self.due_deadlines = self._due_deadlines = array("q", bytes(8 * _DUE))
        self.due_times = self._due_times = array("q", bytes(8 * _DUE))
        self._hashes = array("I", bytes(4 * _RECORDS))
        self._names = array("I", bytes(4 * _RECORDS))
        self._links = array("i", bytes(4 * _RECORDS))
        self._spans_used = 0
        self._free_span = -1
        self._enrichments = []
        self._numbers = {}
        self._labelled = array("I", bytes(4 * _RECORDS))
        self._most_names = NAMES
        self._labels = 0
        self._generation = None

    def __len__(self) -> int:
        return self._count

    def __contains__(self, key: cython.ulonglong) -> bool:
        return self._slots[self._slot(key)] != _NOBODY

    # ---- rows --------------------------------------------------------------------------------------------

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def fold_spans(
        self,
        columns: SpanColumns,
        keys: array[int],
        times: array[int],
        skip: array[int],
        now: int | None,
        bits: SpanBits,
        labels: SpanLabels,
        features: SpanFeatures | None = None,
    ) -> None:
        """The spans of a batch, but for those with skip[row]: to which trace each belongs and what it says.

        `times` is the stream time of each row, `now` the clock: no later row can be older. `bits`, `labels` and
        `features` are those of this batch.
        """
        self._read_names(labels)
        rows: cython.Py_ssize_t = columns.rows
        width: cython.Py_ssize_t = columns.width
        words: cython.Py_ssize_t = self._words
        data: bytes = columns.data
        p: cython.p_const_uchar = data
        cells: cython.const[cython.ulonglong][::1] = columns.cells
        key: cython.const[cython.ulonglong][::1] = keys
        time: cython.const[cython.longlong][::1] = times
        skipped: cython.const[cython.uchar][::1] = skip
        met: cython.const[cython.ulonglong][::1] = bits.bits
        random: cython.const[cython.ulonglong][::1] = bits.randomness
        label: cython.const[cython.uint][::1] = labels.numbers
        clocked: cython.bint = now is not None
        clock: cython.longlong = now or 0
        row: cython.Py_ssize_t
        base: cython.Py_ssize_t
        at: cython.Py_ssize_t
        word: cython.Py_ssize_t
        record: cython.Py_ssize_t
        start: cython.ulonglong
        high: cython.ulonglong
        parent: cython.Py_ssize_t
        root: cython.bint
        if min(len(keys), len(times), len(skip), len(random), len(label)) < rows or len(met) < rows * words:
            raise IndexError("a column is shorter than the batch")
        if rows > len(self._row_records):
            self._row_records = array("i", bytes(8 * rows))
        records: cython.int[::1] = self._row_records
        for row in range(rows):
            if skipped[row]:
                continue
            base = row * width
            parent = cells[base + _C_PARENT + 1] - cells[base + _C_PARENT]
            root = parent == 0 or (parent == 8 and _u64(p, cells[base + _C_PARENT]) == 0)
            high = 0
            if cells[base + _C_TRACE_ID + 1] - cells[base + _C_TRACE_ID] == 16:
                high = _u64(p, cells[base + _C_TRACE_ID])
            record = self._trace(key[row], time[row], high, root)
            start = cells[base + _C_START]
            if cells[base + _C_SPAN_ID + 1] - cells[base + _C_SPAN_ID] == 8:
                self._remember(
                    record,
                    _u64(p, cells[base + _C_SPAN_ID]),
                    start,
                    root,
                    cells[base + _C_STATUS] == _C_ERROR,
                    self._labelled[label[row]],
                )
            at = self._evidence(record, time[row], clocked, clock)
            records[row] = at
            self._small[at * _SMALL + _SPANS] += 1
            at *= self._width
            self._wide[at + _BYTES] += cells[base + _C_SIZE]
            if start != 0 and start < self._wide[at + _MIN_START]:
                self._wide[at + _MIN_START] = start
            if cells[base + _C_END] > self._wide[at + _MAX_END]:
                self._wide[at + _MAX_END] = cells[base + _C_END]
            if random[row] < self._wide[at + _RANDOM]:
                self._wide[at + _RANDOM] = random[row]
            if high > self._wide[at + _HIGH]:
                self._wide[at + _HIGH] = high
            for word in range(words):
                self._wide[at + _BITS + word] |= met[row * words + word]
        if self.sets is not None and features is not None:
            self.sets.fold(self._row_records, features, skip, rows)

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def fold_logs(
        self,
        columns: LogColumns,
        keys: array[int],
        times: array[int],
        skip: array[int],
        now: int | None,
        severity_bits: array[int],
    ) -> None:
        """The log records of a batch, likewise; `severity_bits` are `words` words for each severity number from 0."""
        rows: cython.Py_ssize_t = columns.rows
        words: cython.Py_ssize_t = self._words
        data: bytes = columns.data
        p: cython.p_const_uchar = data
        cells: cython.const[cython.ulonglong][::1] = columns.cells
        key: cython.const[cython.ulonglong][::1] = keys
        time: cython.const[cython.longlong][::1] = times
        skipped: cython.const[cython.uchar][::1] = skip
        met: cython.const[cython.ulonglong][::1] = severity_bits
        highest: cython.Py_ssize_t = len(met) // words - 1
        clocked: cython.bint = now is not None
        clock: cython.longlong = now or 0
        row: cython.Py_ssize_t
        base: cython.Py_ssize_t
        at: cython.Py_ssize_t
        word: cython.Py_ssize_t
        record: cython.Py_ssize_t
        severity: cython.Py_ssize_t
        high: cython.ulonglong
        if min(len(keys), len(times), len(skip)) < rows or highest < 0:
            raise IndexError("a column is shorter than the batch")
        for row in range(rows):
            if skipped[row]:
                continue
            base = row * _C_LOG_CELLS
            high = 0
            if cells[base + _C_TRACE_ID + 1] - cells[base + _C_TRACE_ID] == 16:
                high = _u64(p, cells[base + _C_TRACE_ID])
            record = self._trace(key[row], time[row], high, False)
            if cells[base + _C_SPAN_ID + 1] - cells[base + _C_SPAN_ID] == 8:
                self._name(record, _u64(p, cells[base + _C_SPAN_ID]))
            at = self._evidence(record, time[row], clocked, clock)
            self._small[at * _SMALL + _LOGS] += 1
            severity = cells[base + _C_SEVERITY]
            if severity >= 1 << 31:
                severity = 0  # a negative number says nothing
            severity = min(severity, highest)
            at = at * self._width
            if high > self._wide[at + _HIGH]:
                self._wide[at + _HIGH] = high
            for word in range(words):
                self._wide[at + _BITS + word] |= met[severity * words + word]

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.exceptval(-1)
    def _trace(
        self, key: cython.ulonglong, time: cython.longlong, high: cython.ulonglong, root: cython.bint
    ) -> cython.Py_ssize_t:
        """The record of a row's trace; a new one if there is none."""
        slot: cython.Py_ssize_t = self._slot(key)
        record: cython.Py_ssize_t
        at: cython.Py_ssize_t
        if self._slots[slot] == _NOBODY:
            record = self._take(time, high)
            self._wide[record * self._width + _KEY] = key
            self._slots[slot] = record
            self._count += 1
            self._link(record)
            if self._count > _LOAD * len(self._slots):
                self._rehash()
            at = record * self._time_width
        else:
            record = self._slots[slot]
            at = record * self._time_width
            if time < self._times[at + _FIRST]:
                self._times[at + _FIRST] = time
                self._relink(record)
            if time > self._times[at + _LAST]:
                self._times[at + _LAST] = time
        if root and self._rooted and (self._times[at + _ROOT] == _NO_TIME or time < self._times[at + _ROOT]):
            self._times[at + _ROOT] = time
            self._relink(record)
        return record

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.exceptval(check=False)
    def _deadline(self, record: cython.Py_ssize_t) -> cython.longlong:
        at: cython.Py_ssize_t = record * self._time_width
        deadline: cython.longlong = self._times[at + _FIRST] + self.decision_wait
        if self._rooted and self._times[at + _ROOT] != _NO_TIME:
            deadline = min(deadline, self._times[at + _ROOT] + self._after_root)
        return deadline

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.exceptval(-1)
    def _evidence(
        self, record: cython.Py_ssize_t, time: cython.longlong, clocked: cython.bint, now: cython.longlong
    ) -> cython.Py_ssize_t:
        """The record to which a row at `time` belongs: its trace's, or that of evidence ahead.

        Deadlines only come earlier: all rows that lie beyond are one record, which nobody will ask. Of others each ms
        has its own: a row that is still to come may put the deadline between any two.
        """
        at: cython.Py_ssize_t = record * self._time_width
        top: cython.Py_ssize_t
        taken: cython.Py_ssize_t
        earliest: cython.longlong
        root: cython.longlong
        if clocked:
            # The deadline of the trace, should its next row be at `now` and a root.
            earliest = min(self._times[at + _FIRST], now) + self.decision_wait
            if self._rooted:
                root = now if self._times[at + _ROOT] == _NO_TIME else min(self._times[at + _ROOT], now)
                earliest = min(earliest, root + self._after_root)
            if time <= earliest:
                return record
        top = self._small[record * _SMALL + _AHEAD]
        if time > self._deadline(record):
            time = _BEYOND
        if top >= 0:
            top = self._small[record * _SMALL + _AHEAD] = self._splay(top, time)
            if self._first(top) == time:
                return top
        taken = self._take(time, 0)
        self._small[record * _SMALL + _AHEAD] = taken
        if top >= 0 and time < self._first(top):
            self._small[taken * _SMALL + _EARLIER] = self._small[top * _SMALL + _EARLIER]
            self._small[taken * _SMALL + _LATER] = top
            self._small[top * _SMALL + _EARLIER] = -1
        elif top >= 0:
            self._small[taken * _SMALL + _LATER] = self._small[top * _SMALL + _LATER]
            self._small[taken * _SMALL + _EARLIER] = top
            self._small[top * _SMALL + _LATER] = -1
        return taken

    @cython.cfunc
    @cython.inline
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.exceptval(check=False)
    def _first(self, record: cython.Py_ssize_t) -> cython.longlong:
        return self._times[record * self._time_width + _FIRST]

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.exceptval(check=False)
    def _splay(self, top: cython.Py_ssize_t, time: cython.longlong) -> cython.Py_ssize_t:
        """The new top of a tree of evidence ahead: the record of `time`, or without one its next older or newer one.

        Top-down, as in Sleator & Tarjan, Self-adjusting binary search trees (J. ACM 32, 1985), section 4.
        """
        below: cython.Py_ssize_t
        earlier: cython.Py_ssize_t = -1  # the tops of what lies on both sides of `time`, …
        later: cython.Py_ssize_t = -1
        latest: cython.Py_ssize_t = -1  # … and in each the record nearest to it, which has nothing on that side yet
        soonest: cython.Py_ssize_t = -1
        while time != self._first(top):
            if time < self._first(top):
                below = self._small[top * _SMALL + _EARLIER]
                if below >= 0 and time < self._first(below):
                    self._small[top * _SMALL + _EARLIER] = self._small[below * _SMALL + _LATER]
                    self._small[below * _SMALL + _LATER] = top
                    top, below = below, self._small[below * _SMALL + _EARLIER]
                if below < 0:
                    break
                if soonest < 0:
                    later = top
                else:
                    self._small[soonest * _SMALL + _EARLIER] = top
                soonest, top = top, below
            else:
                below = self._small[top * _SMALL + _LATER]
                if below >= 0 and time > self._first(below):
                    self._small[top * _SMALL + _LATER] = self._small[below * _SMALL + _EARLIER]
                    self._small[below * _SMALL + _EARLIER] = top
                    top, below = below, self._small[below * _SMALL + _LATER]
                if below < 0:
                    break
                if latest < 0:
                    earlier = top
                else:
                    self._small[latest * _SMALL + _LATER] = top
                latest, top = top, below
        if latest >= 0:
            self._small[latest * _SMALL + _LATER] = self._small[top * _SMALL + _EARLIER]
            self._small[top * _SMALL + _EARLIER] = earlier
        if soonest >= 0:
            self._small[soonest * _SMALL + _EARLIER] = self._small[top * _SMALL + _LATER]
            self._small[top * _SMALL + _LATER] = later
        return top

    # ---- what is due -------------------------------------------------------------------------------------

    def list_due(self, now: int) -> int:
        """List traces whose deadline has come, in order of deadline and key, their evidence complete; how many.

        Trace i has `due_records[i]`, `due_keys[i]`, `due_deadlines[i]` and `due_times[i]`, from when on its verdict is
        needed: `now`, or its newest row's stream time. Not more than a few thousand at a time: `settle` takes them out,
        then ask again.
        """
        record: cython.Py_ssize_t
        first: cython.Py_ssize_t
        self._put_back(0)
        while self._due_count < _DUE and self._advance(now):
            first = self._due_count
            record = self._wheel[self._position & (_LISTS - 1)]
            if self._is_short(record, min(_SHORT, _DUE - first)):
                while record >= 0:
                    self._unlink(record)
                    self._put_due(record, first, now)
                    record = self._wheel[self._position & (_LISTS - 1)]
                continue
            if self._in_order != self._position:
                self._put_in_order(record)
                record = self._wheel[self._position & (_LISTS - 1)]
            while record >= 0 and self._due_count < _DUE:
                self._unlink(record)
                self._put_due(record, self._due_count, now)
                record = self._wheel[self._position & (_LISTS - 1)]
        return self._due_count

    @cython.cfunc
    @cython.exceptval(-1)
    def _put_in_order(self, record: cython.Py_ssize_t) -> cython.int:
        """Sort the list of the wheel's position, whose first is `record`: it may be that of a whole backlog."""
        waiting: list[tuple[int, int, int]] = []
        while record >= 0:
            waiting.append((self._deadline(record), self._wide[record * self._width + _KEY], record))
            record = self._small[record * _SMALL + _NEXT]
        waiting.sort(reverse=True)
        for _, _, each in waiting:
            self._unlink(each)
            self._link(each)
        self._in_order = self._position
        return 0

    @cython.cfunc
    @cython.exceptval(check=False)
    def _is_before(self, record: cython.Py_ssize_t, other: cython.Py_ssize_t) -> cython.bint:
        """By deadline and key."""
        deadline: cython.longlong = self._deadline(record)
        others: cython.longlong = self._deadline(other)
        if deadline != others:
            return deadline < others
        return self._wide[record * self._width + _KEY] < self._wide[other * self._width + _KEY]

    @cython.cfunc
    @cython.exceptval(check=False)
    def _is_short(self, record: cython.Py_ssize_t, most: cython.Py_ssize_t) -> cython.bint:
        """Whether a list has at most so many records; `record` is its first."""
        while record >= 0 and most > 0:
            record = self._small[record * _SMALL + _NEXT]
            most -= 1
        return record < 0

    @cython.cfunc
    @cython.exceptval(-1)
    def _put_due(self, record: cython.Py_ssize_t, first: cython.Py_ssize_t, now: cython.longlong) -> cython.int:
        """List a trace, in its order among those from place `first` on."""
        key: cython.ulonglong = self._wide[record * self._width + _KEY]
        deadline: cython.longlong = self._deadline(record)
        at: cython.Py_ssize_t = self._due_count
        while at > first and (
            self._due_deadlines[at - 1] > deadline
            or (self._due_deadlines[at - 1] == deadline and self._due_keys[at - 1] > key)
        ):
            self._due_records[at] = self._due_records[at - 1]
            self._due_keys[at] = self._due_keys[at - 1]
            self._due_deadlines[at] = self._due_deadlines[at - 1]
            self._due_times[at] = self._due_times[at - 1]
            at -= 1
        self._free_ahead(record, deadline)
        self._due_records[at] = record
        self._due_keys[at] = key
        self._due_deadlines[at] = deadline
        self._due_times[at] = max(now, self._times[record * self._time_width + _LAST])
        self._due_count += 1
        return 0

    def settle(self, count: int) -> None:
        """Take out the first `count` of the traces that were listed."""
        place: cython.Py_ssize_t
        record: cython.Py_ssize_t
        for place in range(count):
            record = self._due_records[place]
            self._remove(self._due_keys[place])
            self._let_go(record)
        self._put_back(count)

    def _put_back(self, first: int) -> None:
        """Those that were listed, from place `first` on, wait again."""
        place: cython.Py_ssize_t
        for place in range(self._due_count - 1, first - 1, -1):  # so that a list stays in order
            self._link(self._due_records[place])
        self._due_count = 0

    def evidence(self, place: int) -> Evidence:
        """What is known of a trace that was listed."""
        record: cython.Py_ssize_t = self.due_records[place]
        at: cython.Py_ssize_t = record * self._width
        word: cython.Py_ssize_t
        bits: object = 0
        high: object = self._wide[at + _HIGH]
        low: object = self._wide[at + _KEY]
        part: object
        for word in range(self._words):
            part = self._wide[at + _BITS + word]
            bits = bits | part << (64 * word)
        return Evidence(
            trace_id=high.to_bytes(8, "big") + low.to_bytes(8, "big"),
            bits=bits,
            spans=self._small[record * _SMALL + _SPANS],
            logs=self._small[record * _SMALL + _LOGS],
            min_start=self._wide[at + _MIN_START],
            max_end=self._wide[at + _MAX_END],
            bytes=self._wide[at + _BYTES],
            randomness=None if self._wide[at + _RANDOM] == _U64_MAX else self._wide[at + _RANDOM],
            features=() if self.sets is None else self.sets.of(record),
        )

    def outline(self, place: int, mask: int) -> tuple[bytes, bool]:
        """The id of a trace that was listed, and whether one of its rows met a predicate of `mask`."""
        record: cython.Py_ssize_t = self.due_records[place]
        at: cython.Py_ssize_t = record * self._width
        word: cython.Py_ssize_t
        met: object = 0
        high: object = self._wide[at + _HIGH]
        low: object = self._wide[at + _KEY]
        for word in range(self._words):
            met = met | (mask >> 64 * word) & self._wide[at + _BITS + word]
        return high.to_bytes(8, "big") + low.to_bytes(8, "big"), met != 0

    @property
    def wide(self) -> Any:
        """The 64-bit words of all records: that at KEY, HIGH, … of record r is at r * (BITS + words) + KEY, …"""
        return self._wide

    @property
    def small(self) -> Any:
        """The 32-bit numbers of all records, SMALL a record."""
        return self._small

    @cython.cfunc
    @cython.exceptval(-1)
    def _merge(self, record: cython.Py_ssize_t, ahead: cython.Py_ssize_t) -> cython.int:
        to: cython.Py_ssize_t = record * self._width
        of: cython.Py_ssize_t = ahead * self._width
        word: cython.Py_ssize_t
        self._wide[to + _HIGH] = max(self._wide[to + _HIGH], self._wide[of + _HIGH])
        self._wide[to + _MIN_START] = min(self._wide[to + _MIN_START], self._wide[of + _MIN_START])
        self._wide[to + _MAX_END] = max(self._wide[to + _MAX_END], self._wide[of + _MAX_END])
        self._wide[to + _RANDOM] = min(self._wide[to + _RANDOM], self._wide[of + _RANDOM])
        self._wide[to + _BYTES] += self._wide[of + _BYTES]
        for word in range(self._words):
            self._wide[to + _BITS + word] |= self._wide[of + _BITS + word]
        self._small[record * _SMALL + _SPANS] += self._small[ahead * _SMALL + _SPANS]
        self._small[record * _SMALL + _LOGS] += self._small[ahead * _SMALL + _LOGS]
        if self.sets is not None:
            self.sets.merge(record, ahead)
        return 0

    # ---- the wheel ---------------------------------------------------------------------------------------

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.exceptval(-1)
    def _link(self, record: cython.Py_ssize_t) -> cython.int:
        """Into the list of its deadline; one that has passed is that of the wheel's position."""
        deadline: cython.longlong = max(self._deadline(record), self._position)
        differing: cython.longlong = (deadline ^ self._position) >> _DIGIT
        level: cython.int = 0
        place: cython.Py_ssize_t
        after: cython.int
        while differing != 0:
            differing >>= _DIGIT
            level += 1
        place = level * _LISTS + ((deadline >> (level * _DIGIT)) & (_LISTS - 1))
        after = self._wheel[place]
        if deadline == self._in_order and after >= 0 and not self._is_before(record, after):
            self._in_order = _NO_TIME
        self._wheel[place] = record
        self._small[record * _SMALL + _BEFORE] = -1 - place
        self._small[record * _SMALL + _NEXT] = after
        if after >= 0:
            self._small[after * _SMALL + _BEFORE] = record
        return 0

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.exceptval(-1)
    def _unlink(self, record: cython.Py_ssize_t) -> cython.int:
        before: cython.int = self._small[record * _SMALL + _BEFORE]
        after: cython.int = self._small[record * _SMALL + _NEXT]
        if after >= 0:
            self._small[after * _SMALL + _BEFORE] = before
        if before >= 0:
            self._small[before * _SMALL + _NEXT] = after
        else:
            self._wheel[-1 - before] = after
        self._small[record * _SMALL + _BEFORE] = _LISTED
        return 0

    @cython.cfunc
    @cython.exceptval(-1)
    def _relink(self, record: cython.Py_ssize_t) -> cython.int:
        """Its deadline has come forward."""
        if self._small[record * _SMALL + _BEFORE] != _LISTED:
            self._unlink(record)
            self._link(record)
        return 0

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.exceptval(-1)
    def _advance(self, now: cython.longlong) -> cython.bint:
        """To the next deadline until `now` that has traces, else to `now`; whether there is one."""
        level: cython.int
        shift: cython.int
        digit: cython.Py_ssize_t
        begins: cython.longlong
        while self._count > self._due_count:
            for level in range(_LEVELS):
                shift = level * _DIGIT
                digit = (self._position >> shift) & (_LISTS - 1)
                if level > 0:
                    digit += 1  # what is in this list of a higher level has moved down
                while digit < _LISTS and self._wheel[level * _LISTS + digit] < 0:
                    digit += 1
                if digit < _LISTS:
                    break
            begins = (((self._position >> shift) & ~(_LISTS - 1)) | digit) << shift
            if begins > now:
                break
            self._position = begins
            if level == 0:
                return True
            self._move_down(level * _LISTS + digit)
        self._position = max(self._position, now)
        return False

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.exceptval(-1)
    def _move_down(self, place: cython.Py_ssize_t) -> cython.int:
        record: cython.int = self._wheel[place]
        after: cython.int
        self._wheel[place] = -1
        while record >= 0:
            after = self._small[record * _SMALL + _NEXT]
            self._link(record)
            record = after
        return 0

    # ---- spans that logs name ----------------------------------------------------------------------------

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.exceptval(-1)
    def _remember(
        self,
        record: cython.Py_ssize_t,
        span: cython.ulonglong,
        start: cython.ulonglong,
        root: cython.bint,
        failed: cython.bint,
        name: cython.uint,
    ) -> cython.int:
        """See a span. `processors.correlation` says which are remembered."""
        small: cython.Py_ssize_t = record * _SMALL
        wide: cython.Py_ssize_t = record * self._width
        entry: cython.Py_ssize_t
        wanted: cython.bint
        if root and (
            self._small[small + _ROOT_NAME] < 0
            or start < self._wide[wide + _ROOT_START]
            or (start == self._wide[wide + _ROOT_START] and self._precedes(name, self._small[small + _ROOT_NAME]))
        ):
            self._wide[wide + _ROOT_START] = start
            self._small[small + _ROOT_NAME] = name
        if not self._logged:
            return 0
        wanted = failed or self._is_named(record, span)
        if failed:
            name |= _FAILED
        if (self._small[small + _COUNTS] & 0xFF) < _SPAN_ENTRIES:
            self._small[small + _ENTRIES] = self._take_span(_hash(span), name, self._small[small + _ENTRIES])
            self._small[small + _COUNTS] += _REMEMBERED if wanted else _REMEMBERED + _ORDINARY
        elif wanted and (self._small[small + _COUNTS] & 0xFF00) != 0:
            entry = self._small[small + _ENTRIES]
            while entry >= 0:
                if not self._names[entry] & _FAILED and not self._is_hash_named(record, self._hashes[entry]):
                    self._hashes[entry] = _hash(span)
                    self._names[entry] = name
                    break
                entry = self._links[entry]
            self._small[small + _COUNTS] -= _ORDINARY  # also when a log has named the last of them since it came
        return 0

    @cython.cfunc
    @cython.exceptval(check=False)
    def _precedes(self, name: cython.uint, other: cython.uint) -> cython.bint:
        """Of two roots that begin at once, one that does not depend on their order counts."""
        if name == other:
            return False
        earlier: bool = self._enrichments[name] < self._enrichments[other]
        return earlier

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.exceptval(check=False)
    def _named_id(self, entry: cython.Py_ssize_t) -> cython.ulonglong:
        high: cython.ulonglong = self._names[entry]
        return high << 32 | self._hashes[entry]

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.exceptval(check=False)
    def _is_named(self, record: cython.Py_ssize_t, span: cython.ulonglong) -> cython.bint:
        entry: cython.Py_ssize_t = self._small[record * _SMALL + _NAMED]
        while entry >= 0:
            if self._named_id(entry) == span:
                return True
            entry = self._links[entry]
        return False

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.exceptval(check=False)
    def _is_hash_named(self, record: cython.Py_ssize_t, hashed: cython.uint) -> cython.bint:
        entry: cython.Py_ssize_t = self._small[record * _SMALL + _NAMED]
        while entry >= 0:
            if _hash(self._named_id(entry)) == hashed:
                return True
            entry = self._links[entry]
        return False

    @cython.cfunc
    @cython.exceptval(-1)
    def _name(self, record: cython.Py_ssize_t, span: cython.ulonglong) -> cython.int:
        """See the span id that a log names."""
        small: cython.Py_ssize_t = record * _SMALL
        if self._small[small + _COUNTS] < _NAMED_ENTRIES * _NAMINGS and not self._is_named(record, span):
            self._small[small + _NAMED] = self._take_span(span & 0xFFFFFFFF, span >> 32, self._small[small + _NAMED])
            self._small[small + _COUNTS] += _NAMINGS
        return 0

    def enrichments(self, place: int) -> tuple[Enrichment | None, dict[bytes, Enrichment]]:
        """What the logs of a trace that was listed learn: its root, and the remembered spans that they named."""
        record: cython.Py_ssize_t = self.due_records[place]
        small: cython.Py_ssize_t = record * _SMALL
        naming: cython.Py_ssize_t = self._small[small + _NAMED]
        entry: cython.Py_ssize_t
        best: cython.Py_ssize_t
        hashed: cython.uint
        span: object
        root: Enrichment | None = None
        if self._small[small + _ROOT_NAME] >= 0:
            root = self._enrichments[self._small[small + _ROOT_NAME]]
        named: dict[bytes, Enrichment] = {}
        while naming >= 0:
            span = self._named_id(naming)
            hashed = _hash(span)
            best, entry = -1, self._small[small + _ENTRIES]
            while entry >= 0:  # the newest first: the oldest wins, a failed one before
                if self._hashes[entry] == hashed and (
                    best < 0 or self._names[entry] & _FAILED or not self._names[best] & _FAILED
                ):
                    best = entry
                entry = self._links[entry]
            if best >= 0:
                named[span.to_bytes(8, "big")] = self._enrichments[self._names[best] & ~_FAILED]
            naming = self._links[naming]
        return root, named

    def _read_names(self, labels: SpanLabels) -> None:
        """The name of every label set that is new."""
        if labels.generation != self._generation:
            self._generation = labels.generation
            self._labels = 0
        if len(labels) == self._labels:
            return
        if len(self._enrichments) > max(self._most_names, 2 * self._count):
            self._forget_names()
            self._most_names = max(NAMES, 2 * len(self._enrichments))
            self._labels = 0
        if len(labels) > len(self._labelled):
            self._labelled = grown(self._labelled, 2 * len(labels))
        for one in labels.sets(self._labels):
            named = enrichment(one.service, one.name, one.status)
            number = self._numbers.setdefault(named, len(self._enrichments))
            if number == len(self._enrichments):
                self._enrichments.append(named)
            self._labelled[self._labels] = number
            self._labels += 1

    def _forget_names(self) -> None:
        """Number anew the names that some trace still holds."""
        old = self._enrichments
        moved: dict[int, int] = {}
        slot: cython.Py_ssize_t
        record: cython.Py_ssize_t
        entry: cython.Py_ssize_t
        name: cython.uint
        self._enrichments, self._numbers = [], {}
        for slot in range(len(self._slots)):
            if self._slots[slot] == _NOBODY:
                continue
            record = self._slots[slot]
            if self._small[record * _SMALL + _ROOT_NAME] >= 0:
                name = self._small[record * _SMALL + _ROOT_NAME]
                self._small[record * _SMALL + _ROOT_NAME] = self._renumber(old, moved, name)
            entry = self._small[record * _SMALL + _ENTRIES]
            while entry >= 0:
                name = self._names[entry] & ~_FAILED
                self._names[entry] = (self._names[entry] & _FAILED) | self._renumber(old, moved, name)
                entry = self._links[entry]

    def _renumber(self, old: list[Enrichment], moved: dict[int, int], name: int) -> int:
        number = moved.get(name)
        if number is None:
            number = moved[name] = len(self._enrichments)
            self._enrichments.append(old[name])
            self._numbers[old[name]] = number
        return number

    # ---- memory ------------------------------------------------------------------------------------------

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.exceptval(check=False)
    def _slot(self, key: cython.ulonglong) -> cython.Py_ssize_t:
        """Where a key is, or the free slot where it would be."""
        slot: cython.Py_ssize_t = self._home(key)
        while self._slots[slot] != _NOBODY and self._wide[self._slots[slot] * self._width + _KEY] != key:
            slot += 1
            if slot == len(self._slots):
                slot = 0
        return slot

    @cython.cfunc
    @cython.exceptval(check=False)
    def _home(self, key: cython.ulonglong) -> cython.Py_ssize_t:
        slots: cython.ulonglong = len(self._slots)
        return ((((key * _FACTOR) & _U64_MAX) >> 32) * slots) >> 32

    @cython.cfunc
    @cython.exceptval(-1)
    def _remove(self, key: cython.ulonglong) -> cython.int:
        """Out of the table of slots: those behind move up, so no search is cut short."""
        slot: cython.Py_ssize_t = self._slot(key)
        behind: cython.Py_ssize_t = slot
        home: cython.Py_ssize_t
        self._count -= 1
        while True:
            behind += 1
            if behind == len(self._slots):
                behind = 0
            if self._slots[behind] == _NOBODY:
                break
            home = self._home(self._wide[self._slots[behind] * self._width + _KEY])
            if slot < home <= behind if slot < behind else slot < home or home <= behind:
                continue
            self._slots[slot] = self._slots[behind]
            slot = behind
        self._slots[slot] = _NOBODY
        return 0

    @cython.cfunc
    @cython.exceptval(-1)
    def _rehash(self) -> cython.int:
        slots: cython.uint[::1] = self._slots
        slot: cython.Py_ssize_t
        record: cython.Py_ssize_t
        self._slots = array("I", [_NOBODY]) * (len(slots) + len(slots) // 4)
        for slot in range(len(slots)):
            if slots[slot] != _NOBODY:
                record = slots[slot]
                self._slots[self._slot(self._wide[record * self._width + _KEY])] = record
        return 0

    @cython.cfunc
    @cython.exceptval(-1)
    def _take(self, time: cython.longlong, high: cython.ulonglong) -> cython.Py_ssize_t:
        """A fresh record."""
        record: cython.Py_ssize_t = self._free
        wide: cython.Py_ssize_t
        small: cython.Py_ssize_t
        index: cython.Py_ssize_t
        room: cython.Py_ssize_t
        if record >= 0:
            self._free = self._small[record * _SMALL + _NEXT]
        else:
            record = self._used
            self._used += 1
            if record * _SMALL >= len(self._small):
                room = record + record // _GROWTH
                self._wide = grown(self._wide, room * self._width)
                self._times = grown(self._times, room * self._time_width)
                self._small = grown(self._small, room * _SMALL)
        wide = record * self._width
        small = record * _SMALL
        for index in range(self._width):
            self._wide[wide + index] = 0
        for index in range(_SMALL):
            self._small[small + index] = 0
        self._wide[wide + _HIGH] = high
        self._wide[wide + _MIN_START] = self._wide[wide + _RANDOM] = _U64_MAX
        self._small[small + _ROOT_NAME] = self._small[small + _ENTRIES] = -1
        self._small[small + _NAMED] = self._small[small + _AHEAD] = -1
        self._times[record * self._time_width + _FIRST] = self._times[record * self._time_width + _LAST] = time
        if self._rooted:
            self._times[record * self._time_width + _ROOT] = _NO_TIME
        return record

    @cython.cfunc
    @cython.exceptval(-1)
    def _let_go(self, record: cython.Py_ssize_t) -> cython.int:
        """Free a record, what is ahead of it and what it remembers."""
        self._free_spans(self._small[record * _SMALL + _ENTRIES])
        self._free_spans(self._small[record * _SMALL + _NAMED])
        self._free_ahead(record, _NO_TIME)
        if self.sets is not None:
            self.sets.free(record)
        self._small[record * _SMALL + _NEXT] = self._free
        self._free = record
        return 0

    @cython.cfunc
    @cython.exceptval(-1)
    def _free_ahead(self, record: cython.Py_ssize_t, until: cython.longlong) -> cython.int:
        """Free what is ahead of a trace; what it says until then counts."""
        ahead: cython.int = self._small[record * _SMALL + _AHEAD]
        after: cython.int
        self._small[record * _SMALL + _AHEAD] = -1
        while ahead >= 0:
            after = self._small[ahead * _SMALL + _EARLIER]
            if after >= 0:  # the earlier one becomes the top: so nothing has to be remembered on the way down
                self._small[ahead * _SMALL + _EARLIER] = self._small[after * _SMALL + _LATER]
                self._small[after * _SMALL + _LATER] = ahead
                ahead = after
                continue
            if self._first(ahead) <= until:
                self._merge(record, ahead)
            if self.sets is not None:
                self.sets.free(ahead)
            after = self._small[ahead * _SMALL + _LATER]
            self._small[ahead * _SMALL + _NEXT] = self._free
            self._free = ahead
            ahead = after
        return 0

    @cython.cfunc
    @cython.exceptval(-1)
    def _take_span(self, hashed: cython.uint, name: cython.uint, link: cython.int) -> cython.Py_ssize_t:
        entry: cython.Py_ssize_t = self._free_span
        room: cython.Py_ssize_t
        if entry >= 0:
            self._free_span = self._links[entry]
        else:
            entry = self._spans_used
            self._spans_used += 1
            if entry >= len(self._links):
                room = entry + entry // _GROWTH
                self._hashes = grown(self._hashes, room)
                self._names = grown(self._names, room)
                self._links = grown(self._links, room)
        self._hashes[entry] = hashed
        self._names[entry] = name
        self._links[entry] = link
        return entry

    @cython.cfunc
    @cython.exceptval(-1)
    def _free_spans(self, entry: cython.int) -> cython.int:
        after: cython.int
        while entry >= 0:
            after = self._links[entry]
            self._links[entry] = self._free_span
            self._free_span = entry
            entry = after
        return 0


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def _hash(span: cython.ulonglong) -> cython.uint:
    """A remembered span is known by 32 bits of its id's hash: among the 64 of a trace, a log that names a span which
    is not there is shown another one's name once in 67 million times."""
    return ((span * _FACTOR) & _U64_MAX) >> 32


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def _u64(p: cython.p_const_uchar, at: cython.Py_ssize_t) -> cython.ulonglong:
    """Eight bytes, big-endian: so numbers compare as the bytes do."""
    value: cython.ulonglong = 0
    index: cython.int
    if not cython.compiled:
        return int.from_bytes(p[at : at + 8], "big")
    for index in range(8):
        value = (value << 8) | p[at + index]
    return value
