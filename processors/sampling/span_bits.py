"""Which predicates the spans of a batch meet: every question of every policy at once.

Memory layout: a span's answers are `words` 64-bit words of `bits`. What a value of an attribute (or a tracestate, or a
name) meets is worked out once, when it is first met: an `Interner` for each key numbers values, and a table beside it
holds their answers. So a span costs one look for its status and one for each key that any policy names, whatever the
number of policies. What has to hold for one and the same span is put together from these answers at the end: a *term*
is a bit that a span gets that has all bits of one set and none of another. `python -m bench.micro.span_bits` measures
it.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import cython

from processors.interner import Interner
from processors.sampling.predicates import Lookup, Tests, attribute_bits, met
from processors.sampling.trace_state import States
from schemas.otlp_scan import (
    ATTRIBUTES,
    END_NS,
    FLAGS,
    KIND,
    NAME,
    PARENT_SPAN_ID,
    START_NS,
    STATUS,
    TRACE_STATE,
    AttributeValue,
    SpanColumns,
    attribute_value,
)
from schemas.trace_state import randomness_of_state

if TYPE_CHECKING:
    from processors.sampling.event_bits import EventBits

NO_RANDOMNESS = (1 << 64) - 1
VALUES = 1 << 14  # remembered of one key; then they are forgotten all at once: that needs no order, a refill is cheap
_CODES = cython.declare(cython.Py_ssize_t, 8)  # of status and kind that are looked up in a table; no others are defined
WORD = 64
_ROWS = 256  # for which there is room at first
_ABSENT = cython.declare(cython.uint, 0xFFFFFFFF)
_NO_RANDOMNESS = cython.declare(cython.ulonglong, NO_RANDOMNESS)
_STATUS = cython.declare(cython.Py_ssize_t, STATUS)
_TRACE_STATE = cython.declare(cython.Py_ssize_t, TRACE_STATE)
_KIND = cython.declare(cython.Py_ssize_t, KIND)
_FLAGS = cython.declare(cython.Py_ssize_t, FLAGS)
_NAME = cython.declare(cython.Py_ssize_t, NAME)
_PARENT = cython.declare(cython.Py_ssize_t, PARENT_SPAN_ID)
_START_NS = cython.declare(cython.Py_ssize_t, START_NS)
_END_NS = cython.declare(cython.Py_ssize_t, END_NS)
_SAMPLED = cython.declare(cython.ulonglong, 1)  # the W3C trace flag

Term = tuple[int, int, int]
"""The bits that a span gets, those that it must have, and those that it must not have."""
Between = tuple[int, int, int]
"""Lowest and highest value (both included), and the bit."""


@dataclass(slots=True)
class FieldBits:
    """The predicates about fields that every span has.

    `statuses` and `kinds` are by code, `sampled` is met by the W3C flag, `root` by a span without a parent, `names` by
    its name, and `durations` by end − start in ns.
    """

    statuses: dict[int, int] = field(default_factory=dict)
    kinds: dict[int, int] = field(default_factory=dict)
    sampled: int = 0
    root: int = 0
    names: Tests = field(default_factory=list)
    durations: list[Between] = field(default_factory=list)


def words_of(bits: int, words: int) -> list[int]:
    """A bit set as 64-bit words, lowest first."""
    return [bits >> (WORD * word) & 0xFFFFFFFFFFFFFFFF for word in range(words)]


class Answers:
    """What the values of one field meet, by the number that an Interner gives them."""

    def __init__(self, words: int, answer: Callable[[bytes], int]) -> None:
        self.values = Interner()
        self.table = array("Q")
        self._words = words
        self._answer = answer

    def prepare(self) -> None:
        """Before a batch: forget what has become too much."""
        if len(self.values) > VALUES:
            self.values.clear()
            self.table = array("Q")

    def extend(self) -> None:
        """After a batch was numbered: answer for the values that are new."""
        known = len(self.table) // self._words
        if len(self.values) > known:
            for number in range(known, len(self.values)):
                self.table.extend(words_of(self._answer(self.values.text(number)), self._words))


@cython.cclass
class SpanBits:
    """The answers for one batch after another.

    `fields` are those of a span's own fields, `lookups` those of the attributes in their slots, `states` those of
    tracestates, `terms` what a span gets for several of them, `events` what it gets for one of its events; `words` is
    the width of an answer. After `assign`, row i has `bits[i * words : (i + 1) * words]` and `randomness[i]`: the
    56-bit `rv` of its tracestate or NO_RANDOMNESS.
    """

    bits = cython.declare(object, visibility="readonly")
    randomness = cython.declare(object, visibility="readonly")
    _words: cython.Py_ssize_t
    _status: cython.ulonglong[::1]
    _kind: cython.ulonglong[::1]
    _sampled: cython.ulonglong[::1]
    _root: cython.ulonglong[::1]
    _nameless: cython.ulonglong[::1]
    _durations: cython.longlong[::1]  # (lowest, highest) each
    _of_durations: cython.ulonglong[::1]
    _terms: cython.ulonglong[::1]  # (gets, must have, must not have) each
    _flagged: cython.bint  # whether anybody asks for flags, …
    _rooted: cython.bint
    _named: cython.bint
    _timed: cython.Py_ssize_t  # … and how many for durations
    _term_count: cython.Py_ssize_t
    lookups = cython.declare(list, visibility="readonly")
    _states: object
    _names: object
    _numbers: object
    _events: object

    def __init__(
        self,
        words: int,
        fields: FieldBits,
        lookups: Sequence[Lookup],
        states: States | None,
        terms: Sequence[Term] = (),
        events: EventBits | None = None,
    ) -> None:
        self._words = words
        self._status = _table(fields.statuses, words)
        self._kind = _table(fields.kinds, words)
        self._sampled = _flat([fields.sampled], words)
        self._root = _flat([fields.root], words)
        self._nameless = _flat([met(fields.names, "")], words)
        self._durations = array("q", [bound for low, high, _ in fields.durations for bound in (low, high)] or [0])
        self._of_durations = _flat([bit for _, _, bit in fields.durations], words)
        self._terms = _flat([bits for term in terms for bits in term], words)
        self._flagged, self._rooted, self._named = fields.sampled != 0, fields.root != 0, bool(fields.names)
        self._timed, self._term_count = len(fields.durations), len(terms)
        self.lookups = [(lookup[0], Answers(words, attribute_answer(lookup))) for lookup in lookups]
        self._states = Answers(words + 1, _state_answer(words, states))
        self._names = Answers(words, text_answer(fields.names))
        self._events = events
        self._reserve(_ROWS)

    def _reserve(self, rows: int) -> None:
        self.bits = array("Q", bytes(8 * rows * self._words))
        self.randomness = array("Q", bytes(8 * rows))
        self._numbers = array("I", bytes(4 * rows))

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def assign(self, columns: SpanColumns, resource: array[int], resource_bits: Sequence[int]) -> None:
        """Answer for the spans of a batch; `resource_bits` is what their resources meet, by `resource[row]`."""
        rows: cython.Py_ssize_t = columns.rows
        width: cython.Py_ssize_t = columns.width
        words: cython.Py_ssize_t = self._words
        cells: cython.const[cython.ulonglong][::1] = columns.cells
        row: cython.Py_ssize_t
        word: cython.Py_ssize_t
        base: cython.Py_ssize_t
        status: cython.ulonglong
        kind: cython.ulonglong
        stateful: cython.bint = False
        if rows > len(self.randomness):
            self._reserve(2 * rows)
        bits: cython.ulonglong[::1] = self.bits
        randomness: cython.ulonglong[::1] = self.randomness
        of: cython.const[cython.uint][::1] = resource
        theirs: cython.ulonglong[::1] = array("Q", [w for b in resource_bits for w in words_of(b, words)] or [0])
        if rows > len(resource):
            raise IndexError("fewer resources than rows")
        for row in range(rows):
            if (of[row] + 1) * words > len(theirs):
                raise IndexError("a row of no resource")
            base = row * width
            status = cells[base + _STATUS]
            kind = cells[base + _KIND]
            for word in range(words):
                bits[row * words + word] = theirs[of[row] * words + word]
                if status < _CODES:
                    bits[row * words + word] |= self._status[status * words + word]
                if kind < _CODES:
                    bits[row * words + word] |= self._kind[kind * words + word]
                if self._flagged and cells[base + _FLAGS] & _SAMPLED:
                    bits[row * words + word] |= self._sampled[word]
                if self._named and cells[base + _NAME + 1] == 0:
                    bits[row * words + word] |= self._nameless[word]
            randomness[row] = _NO_RANDOMNESS
            stateful |= cells[base + _TRACE_STATE + 1] > cells[base + _TRACE_STATE]
        if self._rooted or self._timed:
            self._relations(columns)
        for slot, answers in self.lookups:
            self._look_up(columns, ATTRIBUTES + 2 * slot, answers)
        if self._named:
            self._look_up(columns, NAME, self._names)
        if stateful:
            self._look_up(columns, TRACE_STATE, self._states)
        if self._term_count:
            self._add_terms(rows)
        if self._events is not None:
            self._events.add(columns, self.bits)

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.exceptval(-1)
    def _relations(self, columns: SpanColumns) -> cython.int:
        """Whether a span has a parent, and how long it took."""
        data: bytes = columns.data
        p: cython.p_const_uchar = data
        words: cython.Py_ssize_t = self._words
        cells: cython.const[cython.ulonglong][::1] = columns.cells
        bits: cython.ulonglong[::1] = self.bits
        row: cython.Py_ssize_t
        base: cython.Py_ssize_t
        word: cython.Py_ssize_t
        at: cython.Py_ssize_t
        duration: cython.longlong
        for row in range(columns.rows):
            base = row * columns.width
            if self._rooted:
                for at in range(cells[base + _PARENT], cells[base + _PARENT + 1]):
                    if p[at] != 0:
                        break
                else:
                    for word in range(words):
                        bits[row * words + word] |= self._root[word]
            if not self._timed:
                continue
            if cython.compiled:
                duration = cells[base + _END_NS] - cells[base + _START_NS]
            else:
                duration = _signed_64(cells[base + _END_NS] - cells[base + _START_NS])
            for at in range(self._timed):
                if self._durations[2 * at] <= duration <= self._durations[2 * at + 1]:
                    for word in range(words):
                        bits[row * words + word] |= self._of_durations[at * words + word]
        return 0

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.exceptval(-1)
    def _add_terms(self, rows: cython.Py_ssize_t) -> cython.int:
        words: cython.Py_ssize_t = self._words
        bits: cython.ulonglong[::1] = self.bits
        row: cython.Py_ssize_t
        word: cython.Py_ssize_t
        term: cython.Py_ssize_t
        at: cython.Py_ssize_t
        mine: cython.ulonglong
        for row in range(rows):
            for term in range(self._term_count):
                at = 3 * term * words
                for word in range(words):
                    mine = bits[row * words + word]
                    if mine & self._terms[at + words + word] != self._terms[at + words + word]:
                        break
                    if mine & self._terms[at + 2 * words + word] != 0:
                        break
                else:
                    for word in range(words):
                        bits[row * words + word] |= self._terms[at + word]
        return 0

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.exceptval(-1)
    def _look_up(self, columns: SpanColumns, at: cython.Py_ssize_t, answers: Answers) -> cython.int:
        rows: cython.Py_ssize_t = columns.rows
        words: cython.Py_ssize_t = self._words
        bits: cython.ulonglong[::1] = self.bits
        randomness: cython.ulonglong[::1] = self.randomness
        of_states: cython.bint = answers is self._states
        stride: cython.Py_ssize_t = words + of_states
        row: cython.Py_ssize_t
        word: cython.Py_ssize_t
        number: cython.Py_ssize_t
        answers.prepare()
        answers.values.assign(columns.data, columns.cells, columns.width, at, rows, self._numbers)
        answers.extend()
        if not len(answers.table):
            return 0
        numbers: cython.const[cython.uint][::1] = self._numbers
        table: cython.const[cython.ulonglong][::1] = answers.table
        for row in range(rows):
            if numbers[row] != _ABSENT:
                number = numbers[row]
                for word in range(words):
                    bits[row * words + word] |= table[number * stride + word]
                if of_states:
                    randomness[row] = table[number * stride + words]
        return 0


def _flat(sets: Sequence[int], words: int) -> array[int]:
    """Bit sets end to end; never empty."""
    return array("Q", [word for bits in sets for word in words_of(bits, words)] or [0])


def _table(by_code: dict[int, int], words: int) -> array[int]:
    return _flat([by_code.get(code, 0) for code in range(8)], words)


def _signed_64(number: int) -> int:
    return ((number + (1 << 63)) & 0xFFFFFFFFFFFFFFFF) - (1 << 63)


def text_answer(tests: Tests) -> Callable[[bytes], int]:
    """The bits of a text, from its bytes."""
    return lambda text: met(tests, text.decode("utf-8", "replace"))


def attribute_answer(lookup: Lookup) -> Callable[[bytes], int]:
    """The bits of an attribute, from the bytes of its AnyValue."""
    slot = lookup[0]

    def answer(text: bytes) -> int:
        values: list[AttributeValue | None] = [None] * (slot + 1)
        values[slot] = attribute_value(text, 0, len(text))
        return attribute_bits((lookup,), values)

    return answer


def _state_answer(words: int, states: States | None) -> Callable[[bytes], int]:
    """The bits of a tracestate, and above them its randomness."""

    def answer(text: bytes) -> int:
        randomness = randomness_of_state(text)
        bits = states.bits(text) if states is not None and text else 0
        return bits | (NO_RANDOMNESS if randomness is None else randomness) << (WORD * words)

    return answer
