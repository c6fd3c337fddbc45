"""Which conditions about span events the spans of a batch meet. Without such a policy nobody looks at events.

Memory layout: an event's answers are `words` 64-bit words, in the same bit space as those of spans, so what a condition
asks of the event, of its span and of the resource is put together by one comparison of bit sets. Values are numbered
and answered as those of spans are (processors.sampling.span_bits). `python -m bench.micro.span_bits` measures it.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence

import cython

from processors.sampling.predicates import Lookup, Tests, met
from processors.sampling.span_bits import Answers, Term, attribute_answer, text_answer, words_of
from schemas.otlp_scan import EVENT_ATTRIBUTES, EVENT_NAME, EVENT_SPAN, EventColumns, SpanColumns

_EVENTS = 64  # for which there is room at first
_ABSENT = cython.declare(cython.uint, 0xFFFFFFFF)
_EVENT_SPAN = cython.declare(cython.Py_ssize_t, EVENT_SPAN)
_EVENT_NAME = cython.declare(cython.Py_ssize_t, EVENT_NAME)


@cython.cclass
class EventBits:
    """The answers about the events of one batch after another.

    `keys` has the slots of `lookups`, which are about attributes of events; `names` are the tests of their names.
    `terms` are what a span gets that has an event which, with its span, has all bits of one set and none of another.
    """

    _words: cython.Py_ssize_t
    _columns: object
    _lookups: list
    _nameless: cython.ulonglong[::1]
    _terms: cython.ulonglong[::1]  # (gets, must have, must not have) each
    _term_count: cython.Py_ssize_t
    _bits: cython.ulonglong[::1]
    _numbers: object

    def __init__(
        self, words: int, keys: Mapping[bytes, int], lookups: Sequence[Lookup], names: Tests, terms: Sequence[Term]
    ) -> None:
        self._words = words
        self._columns = EventColumns(keys)
        self._lookups = [(EVENT_ATTRIBUTES + 2 * one[0], Answers(words, attribute_answer(one))) for one in lookups]
        if names:
            self._lookups.append((EVENT_NAME, Answers(words, text_answer(names))))
        self._nameless = array("Q", words_of(met(names, ""), words))
        self._terms = array("Q", [word for term in terms for bits in term for word in words_of(bits, words)])
        self._term_count = len(terms)
        self._reserve(_EVENTS)

    def _reserve(self, events: int) -> None:
        self._numbers = array("I", bytes(4 * events))
        self._bits = array("Q", bytes(8 * events * self._words))

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def add(self, columns: SpanColumns, bits: array[int]) -> None:
        """Add to the bits of each span (`words` a row) what its events bring; the questions about it are answered."""
        self._columns.scan(columns)
        words: cython.Py_ssize_t = self._words
        events: cython.Py_ssize_t = self._columns.rows
        width: cython.Py_ssize_t = self._columns.width
        cells: cython.const[cython.ulonglong][::1] = self._columns.cells
        spans: cython.ulonglong[::1] = bits
        event: cython.Py_ssize_t
        word: cython.Py_ssize_t
        term: cython.Py_ssize_t
        at: cython.Py_ssize_t
        row: cython.Py_ssize_t
        mine: cython.ulonglong
        if columns.rows * words > len(spans):
            raise IndexError("fewer bits than rows")
        self._answer(events)
        for event in range(events):
            row = cells[event * width + _EVENT_SPAN]
            for term in range(self._term_count):
                at = 3 * term * words
                for word in range(words):
                    mine = self._bits[event * words + word] | spans[row * words + word]
                    if mine & self._terms[at + words + word] != self._terms[at + words + word]:
                        break
                    if mine & self._terms[at + 2 * words + word] != 0:
                        break
                else:
                    for word in range(words):
                        spans[row * words + word] |= self._terms[at + word]

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.exceptval(-1)
    def _answer(self, events: cython.Py_ssize_t) -> cython.int:
        """What each event meets by itself."""
        words: cython.Py_ssize_t = self._words
        width: cython.Py_ssize_t = self._columns.width
        cells: cython.const[cython.ulonglong][::1] = self._columns.cells
        event: cython.Py_ssize_t
        word: cython.Py_ssize_t
        number: cython.Py_ssize_t
        if events > len(self._numbers):
            self._reserve(2 * events)
        for event in range(events):
            for word in range(words):
                self._bits[event * words + word] = 0 if cells[event * width + _EVENT_NAME + 1] else self._nameless[word]
        for at, answers in self._lookups:
            answers.prepare()
            answers.values.assign(self._columns.data, self._columns.cells, width, at, events, self._numbers)
            answers.extend()
            if not len(answers.table):
                continue
            numbers: cython.const[cython.uint][::1] = self._numbers
            table: cython.const[cython.ulonglong][::1] = answers.table
            for event in range(events):
                if numbers[event] != _ABSENT:
                    number = numbers[event]
                    for word in range(words):
                        self._bits[event * words + word] |= table[number * words + word]
        return 0
