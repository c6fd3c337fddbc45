"""Which predicates the spans of a batch meet: every question of every policy at once.

Memory layout: a span's answers are `words` 64-bit words of `bits`. What a value of an attribute (or a tracestate, or a
name) meets is worked out once (processors.sampling.answers), so a span costs one look for its status and one for each
key that any policy names, whatever the number of policies. What has to hold for one and the same span is put together
from these answers at the end: a *term* is a bit that a span gets that has all bits of one set and none of another.
`python -m bench.micro.span_bits` measures it.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import cython

from processors.sampling.answers import (
    WORD,
    Answers,
    Term,
    Terms,
    attribute_answer,
    flat,
    text_answer,
)
from processors.sampling.predicates import Lookup, Tests, met
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
    SpanColumns,
    StatusMessages,
)
from schemas.trace_state import randomness_of_state

if TYPE_CHECKING:
    from processors.sampling.event_bits import EventBits

NO_RANDOMNESS = (1 << 64) - 1
_CODES = cython.declare(cython.Py_ssize_t, 8)  # of status and kind that are looked up in a table; no others are defined
_ROWS = 256  # for which there is room at first
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

Between = tuple[int, int, int]
"""Lowest and highest value (both included), and the bit."""


@dataclass(slots=True)
class FieldBits:
    """The predicates about fields that every span has.

    `statuses` and `kinds` are by code, `sampled` is met by the W3C flag, `root` by a span without a parent, `names` by
    its name, `messages` by that of its status, and `durations` by end − start in ns.
    """

    statuses: dict[int, int] = field(default_factory=dict)
    kinds: dict[int, int] = field(default_factory=dict)
    sampled: int = 0
    root: int = 0
    names: Tests = field(default_factory=list)
    messages: Tests = field(default_factory=list)
    durations: list[Between] = field(default_factory=list)


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
    _flagged: cython.bint  # whether anybody asks for flags, …
    _rooted: cython.bint
    _named: cython.bint
    _timed: cython.Py_ssize_t  # … and how many for durations
    lookups = cython.declare(list, visibility="readonly")
    _states: object
    _names: object
    _messages: object  # None: nobody asks, and nobody reads them
    _statuses: object
    _silent: cython.ulonglong[::1]
    _numbers: object
    _terms: object
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
        self._sampled = flat([fields.sampled], words)
        self._root = flat([fields.root], words)
        self._nameless = flat([met(fields.names, "")], words)
        self._durations = array("q", [bound for low, high, _ in fields.durations for bound in (low, high)] or [0])
        self._of_durations = flat([bit for _, _, bit in fields.durations], words)
        self._flagged, self._rooted, self._named = fields.sampled != 0, fields.root != 0, bool(fields.names)
        self._timed = len(fields.durations)
        self.lookups = [(lookup[0], Answers(words, attribute_answer(lookup))) for lookup in lookups]
        self._states = Answers(words, _state_answer(words, states), beside=True)
        self._names = Answers(words, text_answer(fields.names))
        self._messages = Answers(words, text_answer(fields.messages)) if fields.messages else None
        self._statuses = StatusMessages()
        self._silent = flat([met(fields.messages, "")], words)
        self._terms = Terms(words, terms) if terms else None
        self._events = events
        self._reserve(_ROWS)

    def _reserve(self, rows: int) -> None:
        self.bits = array("Q", bytes(8 * rows * self._words))
        self.randomness = array("Q", bytes(8 * rows))
        self._numbers = array("I", bytes(4 * rows))

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def assign(
        self,
        columns: SpanColumns,
        resource: array[int],
        resource_bits: Sequence[int],
        scope: array[int] | None = None,
        scope_bits: Sequence[int] = (),
    ) -> None:
        """Answer for the spans of a batch; `resource_bits` is what their resources meet, by `resource[row]`.

        Where anybody asks for scopes, `scope_bits` is what these meet, by `scope[row]`.
        """
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
        theirs: cython.ulonglong[::1] = flat(resource_bits, words)
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
        if scope is not None:
            self._scoped(rows, scope, scope_bits)
        if self._rooted or self._timed:
            self._relations(columns)
        for slot, answers in self.lookups:
            answers.add(columns, ATTRIBUTES + 2 * slot, self._numbers, self.bits)
        if self._named:
            self._names.add(columns, NAME, self._numbers, self.bits)
        if self._messages is not None:
            self._said(columns)
        if stateful:
            self._states.add(columns, TRACE_STATE, self._numbers, self.bits, self.randomness)
        if self._terms is not None:
            self._terms.add(self.bits, columns)
        if self._events is not None:
            self._events.add(columns, self.bits)

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.exceptval(-1)
    def _scoped(self, rows: cython.Py_ssize_t, scope: array[int], scope_bits: Sequence[int]) -> cython.int:
        words: cython.Py_ssize_t = self._words
        of: cython.const[cython.uint][::1] = scope
        theirs: cython.ulonglong[::1] = flat(scope_bits, words)
        bits: cython.ulonglong[::1] = self.bits
        row: cython.Py_ssize_t
        word: cython.Py_ssize_t
        if rows > len(scope):
            raise IndexError("fewer scopes than rows")
        for row in range(rows):
            if (of[row] + 1) * words > len(theirs):
                raise IndexError("a row of no scope")
            for word in range(words):
                bits[row * words + word] |= theirs[of[row] * words + word]
        return 0

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.exceptval(-1)
    def _said(self, columns: SpanColumns) -> cython.int:
        """What the messages of statuses meet: read apart, since hardly any policy asks for them."""
        self._statuses.scan(columns)
        self._messages.add(self._statuses, 0, self._numbers, self.bits)
        words: cython.Py_ssize_t = self._words
        cells: cython.const[cython.ulonglong][::1] = self._statuses.cells
        bits: cython.ulonglong[::1] = self.bits
        row: cython.Py_ssize_t
        word: cython.Py_ssize_t
        for row in range(columns.rows):
            if cells[2 * row + 1] == 0:
                for word in range(words):
                    bits[row * words + word] |= self._silent[word]
        return 0

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


def _table(by_code: dict[int, int], words: int) -> array[int]:
    return flat([by_code.get(code, 0) for code in range(8)], words)


def _signed_64(number: int) -> int:
    return ((number + (1 << 63)) & 0xFFFFFFFFFFFFFFFF) - (1 << 63)


def _state_answer(words: int, states: States | None) -> Callable[[bytes], int]:
    """The bits of a tracestate, and above them its randomness."""

    def answer(text: bytes) -> int:
        randomness = randomness_of_state(text)
        bits = states.bits(text) if states is not None and text else 0
        return bits | (NO_RANDOMNESS if randomness is None else randomness) << (WORD * words)

    return answer
