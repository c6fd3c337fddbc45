"""What the key of a trace is made of: values of its spans, as 64-bit hashes, and the set of them that a trace has.

A key must not depend on the order in which spans arrive, so it is that of a *set*: the distinct values of each field,
as in Refinery (sample/trace_key.go). Of one field a trace remembers at most MOST_VALUES, those with the smallest
hashes: also that is the same in any order, and evidence gathered apart merges to the same.

Memory layout: a value is hashed when it is first met, an `Interner` numbers it and a table beside it has the hash. A
feature of a span is one 64-bit number, its lowest 6 bits are those of the feature; those of a trace are 12 bytes each,
linked. Without a policy that wants them nothing of this is done.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, NamedTuple

import cython

from processors.sampling.answers import Answers
from processors.sampling.predicates import text_of
from schemas.columns import grown
from schemas.otlp_scan import (
    ATTRIBUTES,
    NAME,
    PARENT_SPAN_ID,
    STATUS,
    AttributeValue,
    SpanColumns,
    attribute_value,
)

SPAN_NAME, SPAN_STATUS = "\0name", "\0status"
"""Parts of a feature that are no attributes."""
MOST_FEATURES = 64  # of all policies together: as many as the lowest bits of a hash tell apart
MOST_VALUES = 64  # of one field of one trace that are remembered
SERVICE = "service.name"
ROOT = "root."
STATUSES = {0: "UNSET", 1: "OK", 2: "ERROR"}
_ROWS = 256  # for which there is room at first
_ENTRIES = 256
_FEATURES = cython.declare(cython.ulonglong, MOST_FEATURES - 1)
_MOST = cython.declare(cython.Py_ssize_t, MOST_VALUES)
_U64_MAX = cython.declare(cython.ulonglong, (1 << 64) - 1)
# Beyond 32 bits a number in an expression is a Python object to Cython, and all that it is multiplied with.
_FIRST = cython.declare(cython.ulonglong, 0xBF58476D1CE4E5B9)
_SECOND = cython.declare(cython.ulonglong, 0x94D049BB133111EB)
_ABSENT = cython.declare(cython.uint, 0xFFFFFFFF)
_CODES = cython.declare(cython.Py_ssize_t, 8)
_ERROR = cython.declare(cython.ulonglong, 2)
_C_STATUS = cython.declare(cython.Py_ssize_t, STATUS)
_C_PARENT = cython.declare(cython.Py_ssize_t, PARENT_SPAN_ID)
_OF_ROOTS = cython.declare(cython.uchar, 1)
_OF_FAILED = cython.declare(cython.uchar, 2)


class Feature(NamedTuple):
    """The values of these `parts`, together, of all spans, of those without a parent or of those that failed.

    A part is an attribute key (where the span has none, that of its resource), SPAN_NAME or SPAN_STATUS.
    """

    spans: Literal["all", "roots", "failed"]
    parts: tuple[str, ...]


_WORDS: dict[str, Feature] = {
    "name": Feature("all", (SPAN_NAME,)),
    "status": Feature("all", (SPAN_STATUS,)),
    "path": Feature("all", (SERVICE, SPAN_NAME)),
    "errors": Feature("failed", (SERVICE, SPAN_NAME, "error.type")),
}


def feature(name: str) -> Feature:
    """What a name of a `field_list` means.

    >>> feature("root.name"), feature("http.route")
    (Feature(spans='roots', parts=('\\x00name',)), Feature(spans='all', parts=('http.route',)))
    """
    if name.startswith(ROOT):
        inner = _WORDS.get(name.removeprefix(ROOT))
        return Feature("roots", inner.parts if inner else (name.removeprefix(ROOT),))
    return _WORDS.get(name) or Feature("all", (name,))


def hash_of(data: str | bytes) -> int:
    """64 bits that are the same in every process; not 0, which is no value."""
    raw = data.encode("utf-8", "surrogatepass") if isinstance(data, str) else data
    return int.from_bytes(hashlib.blake2b(raw, digest_size=8).digest(), "little") or 1


def _of_value(value: AttributeValue | None) -> int:
    if value is None:
        return 0
    return hash_of(value if isinstance(value, bytes) else text_of(value))


@cython.cclass
class SpanFeatures:
    """The features of one batch after another.

    `slots` has the slot of each attribute key that `features` name. After `assign` row i has
    `hashes[i * n : (i + 1) * n]` for n features, 0 where it has none.
    """

    hashes = cython.declare(object, visibility="readonly")
    features = cython.declare(tuple, visibility="readonly")
    _keys: list  # per part: its slot, or -1
    _answers: list
    _count: cython.Py_ssize_t
    _parts: cython.Py_ssize_t
    _seeds: cython.ulonglong[::1]
    _of: cython.uchar[::1]
    _firsts: cython.Py_ssize_t[::1]
    _members: cython.Py_ssize_t[::1]  # parts of each feature, from its first one on
    _statuses: cython.ulonglong[::1]
    _values: cython.ulonglong[::1]  # a column for each part
    _numbers: object
    _status_part: cython.Py_ssize_t

    def __init__(self, features: Sequence[Feature], slots: dict[bytes, int]) -> None:
        self.features = tuple(features)
        parts = list(dict.fromkeys(part for one in features for part in one.parts))
        self._count, self._parts = len(features), len(parts)
        self._keys = [-1 if part in (SPAN_NAME, SPAN_STATUS) else slots[part.encode()] for part in parts]
        self._answers = [None if part == SPAN_STATUS else _answers(part) for part in parts]
        self._status_part = parts.index(SPAN_STATUS) if SPAN_STATUS in parts else -1
        self._statuses = array("Q", [hash_of(STATUSES.get(code, str(code))) for code in range(8)])
        self._seeds = array("Q", [hash_of("\0".join(one)) for one in ((f.spans, *f.parts) for f in features)] or [0])
        self._of = array("B", [("all", "roots", "failed").index(one.spans) for one in features] or [0])
        members = [parts.index(part) for one in features for part in one.parts]
        self._members = array("q", members or [0])
        firsts = [sum(len(one.parts) for one in features[:place]) for place in range(len(features) + 1)]
        self._firsts = array("q", firsts)
        self._reserve(_ROWS)

    def __len__(self) -> int:
        return self._count

    def _reserve(self, rows: int) -> None:
        self.hashes = array("Q", bytes(8 * rows * max(1, self._count)))
        self._values = array("Q", bytes(8 * rows * max(1, self._parts)))
        self._numbers = array("I", bytes(4 * rows))

    def of_resource(self, values: Sequence[AttributeValue | None]) -> list[int]:
        """The hash of each part as a resource has it, by its attributes in their slots; 0: not there."""
        return [0 if slot < 0 else _of_value(values[slot]) for slot in self._keys]

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def assign(self, columns: SpanColumns, resource: array[int], resources: Sequence[Sequence[int]]) -> None:
        """The features of a batch; `resources` has `of_resource` of each resource, by `resource[row]`."""
        rows: cython.Py_ssize_t = columns.rows
        width: cython.Py_ssize_t = columns.width
        data: bytes = columns.data
        p: cython.p_const_uchar = data
        cells: cython.const[cython.ulonglong][::1] = columns.cells
        row: cython.Py_ssize_t
        at: cython.Py_ssize_t
        place: cython.Py_ssize_t
        member: cython.Py_ssize_t
        hashed: cython.ulonglong
        value: cython.ulonglong
        root: cython.bint
        failed: cython.bint
        present: cython.bint
        if rows > len(self._numbers):
            self._reserve(2 * rows)
        if rows > len(resource) or len(cells) < rows * width:
            raise IndexError("fewer resources or cells than rows")
        self._look_up(columns, resource, resources)
        values: cython.ulonglong[::1] = self._values
        hashes: cython.ulonglong[::1] = self.hashes
        for row in range(rows):
            failed = cells[row * width + _C_STATUS] == _ERROR
            root = True
            for at in range(cells[row * width + _C_PARENT], cells[row * width + _C_PARENT + 1]):
                if p[at] != 0:
                    root = False
                    break
            for place in range(self._count):
                hashes[row * self._count + place] = 0
                if (self._of[place] == _OF_ROOTS and not root) or (self._of[place] == _OF_FAILED and not failed):
                    continue
                hashed = self._seeds[place]
                present = False
                for member in range(self._firsts[place], self._firsts[place + 1]):
                    value = values[self._members[member] * rows + row]
                    present |= value != 0
                    hashed = mixed((hashed + value) & _U64_MAX)
                if present:
                    hashed = (hashed & ~_FEATURES & _U64_MAX) | place
                    hashes[row * self._count + place] = hashed

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def _look_up(self, columns: SpanColumns, resource: array[int], resources: Sequence[Sequence[int]]) -> None:
        """The hash of each part of each row, part by part."""
        rows: cython.Py_ssize_t = columns.rows
        width: cython.Py_ssize_t = columns.width
        cells: cython.const[cython.ulonglong][::1] = columns.cells
        of: cython.const[cython.uint][::1] = resource
        values: cython.ulonglong[::1] = self._values
        theirs: cython.ulonglong[::1]
        row: cython.Py_ssize_t
        place: cython.Py_ssize_t
        status: cython.ulonglong
        for place in range(self._parts):
            if place == self._status_part:
                for row in range(rows):
                    status = cells[row * width + _C_STATUS]
                    values[place * rows + row] = self._statuses[status if status < _CODES else 0]
                continue
            answers = self._answers[place]
            slot: cython.Py_ssize_t = self._keys[place]
            theirs = array("Q", [found[place] for found in resources] or [0])
            found = answers.number(columns, NAME if slot < 0 else ATTRIBUTES + 2 * slot, self._numbers)
            numbers: cython.const[cython.uint][::1] = self._numbers
            table: cython.const[cython.ulonglong][::1] = found if len(found) else array("Q", [0])
            for row in range(rows):
                values[place * rows + row] = 0
                if numbers[row] != _ABSENT:
                    values[place * rows + row] = table[numbers[row]]
                if slot >= 0 and values[place * rows + row] == 0:
                    if of[row] >= len(theirs):
                        raise IndexError("a row of no resource")
                    values[place * rows + row] = theirs[of[row]]


def _answers(part: str) -> Answers:
    answer: Callable[[bytes], int] = hash_of
    if part != SPAN_NAME:
        answer = _of_cell
    return Answers(1, answer)


def _of_cell(text: bytes) -> int:
    return _of_value(attribute_value(text, 0, len(text)))


@cython.cclass
class FeatureSets:
    """The features of each record of a TraceTable, each once."""

    _heads: cython.int[::1]  # of each record the newest entry, counted from 1; 0: none
    _hashes: cython.ulonglong[::1]
    _links: cython.int[::1]
    _used: cython.int
    _free: cython.int

    def __init__(self) -> None:
        self._heads = array("i", bytes(4 * _ENTRIES))
        self._hashes = array("Q", bytes(8 * _ENTRIES))
        self._links = array("i", bytes(4 * _ENTRIES))
        self._used = 1
        self._free = 0

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def fold(self, records: array[int], features: SpanFeatures, skip: array[int], rows: cython.Py_ssize_t) -> None:
        """The features of a batch, but for rows with skip[row]: row i belongs to `records[i]`."""
        of: cython.const[cython.int][::1] = records
        hashes: cython.const[cython.ulonglong][::1] = features.hashes
        skipped: cython.const[cython.uchar][::1] = skip
        count: cython.Py_ssize_t = len(features)
        row: cython.Py_ssize_t
        place: cython.Py_ssize_t
        if min(len(of), len(skipped)) < rows or len(hashes) < rows * count:
            raise IndexError("a column is shorter than the batch")
        for row in range(rows):
            if skipped[row]:
                continue
            for place in range(count):
                if hashes[row * count + place] != 0:
                    self._add(of[row], hashes[row * count + place])

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.exceptval(-1)
    def _add(self, record: cython.Py_ssize_t, hashed: cython.ulonglong) -> cython.int:
        entry: cython.int
        largest: cython.int = 0
        known: cython.Py_ssize_t = 0
        if record >= len(self._heads):
            self._heads = grown(self._heads, 2 * record)
        entry = self._heads[record]
        while entry > 0:
            if self._hashes[entry] == hashed:
                return 0
            if (self._hashes[entry] ^ hashed) & _FEATURES == 0:
                known += 1
                if largest == 0 or self._hashes[entry] > self._hashes[largest]:
                    largest = entry
            entry = self._links[entry]
        if known >= _MOST:
            if hashed < self._hashes[largest]:
                self._hashes[largest] = hashed
            return 0
        entry = self._free
        if entry > 0:
            self._free = self._links[entry]
        else:
            entry = self._used
            self._used += 1
            if entry >= len(self._links):
                self._hashes = grown(self._hashes, 2 * entry)
                self._links = grown(self._links, 2 * entry)
        self._hashes[entry] = hashed
        self._links[entry] = self._heads[record]
        self._heads[record] = entry
        return 0

    def put(self, record: cython.Py_ssize_t, hashes: Iterable[int]) -> None:
        """Add features to a record."""
        for hashed in hashes:
            self._add(record, hashed)

    def merge(self, record: cython.Py_ssize_t, other: cython.Py_ssize_t) -> None:
        """Add what another record has."""
        entry: cython.int = self._heads[other] if other < len(self._heads) else 0
        while entry > 0:
            self._add(record, self._hashes[entry])
            entry = self._links[entry]

    def free(self, record: cython.Py_ssize_t) -> None:
        """A record is nobody's any more."""
        entry: cython.int
        after: cython.int
        if record >= len(self._heads):
            return
        entry = self._heads[record]
        self._heads[record] = 0
        while entry > 0:
            after = self._links[entry]
            self._links[entry] = self._free
            self._free = entry
            entry = after

    def of(self, record: cython.Py_ssize_t) -> tuple[int, ...]:
        """The features of a record, in order."""
        found = []
        entry: cython.int = self._heads[record] if record < len(self._heads) else 0
        while entry > 0:
            found.append(self._hashes[entry])
            entry = self._links[entry]
        return tuple(sorted(found))

    def key(self, record: cython.Py_ssize_t, mask: cython.ulonglong) -> int:
        """The key of a trace: that of the set of those features whose bit is in `mask`. Never 0."""
        entry: cython.int = self._heads[record] if record < len(self._heads) else 0
        total: cython.ulonglong = 0
        one: cython.ulonglong = 1
        while entry > 0:
            if mask & (one << (self._hashes[entry] & _FEATURES)):
                # The number of a feature depends on other policies, a key must not.
                total = (total + mixed(self._hashes[entry] & ~_FEATURES & _U64_MAX)) & _U64_MAX
            entry = self._links[entry]
        return int(total) or 1


@cython.cfunc
@cython.inline
@cython.exceptval(check=False)
def mixed(number: cython.ulonglong) -> cython.ulonglong:
    """The same number with its bits mixed (the finaliser of SplitMix64)."""
    number = ((number ^ (number >> 30)) * _FIRST) & _U64_MAX
    number = ((number ^ (number >> 27)) * _SECOND) & _U64_MAX
    return number ^ (number >> 31)
