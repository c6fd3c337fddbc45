"""Which conditions about span events the spans of a batch meet. Without such a policy nobody looks at events.

Memory layout: an event's answers are `words` 64-bit words, in the same bit space as those of spans, so what a condition
asks of the event, of its span and of the resource is put together by one comparison of bit sets. Values are numbered
and answered as those of spans are (processors.sampling.answers). `python -m bench.micro.span_bits` measures it.
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence

import cython

from processors.sampling.answers import Answers, Term, Terms, attribute_answer, text_answer, words_of
from processors.sampling.predicates import Lookup, Tests, met
from schemas.otlp_scan import EVENT_ATTRIBUTES, EVENT_NAME, EventColumns, SpanColumns

_EVENTS = 64  # for which there is room at first
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
    _terms: object
    _bits: object
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
        self._terms = Terms(words, terms)
        self._reserve(_EVENTS)

    def _reserve(self, events: int) -> None:
        self._numbers = array("I", bytes(4 * events))
        self._bits = array("Q", bytes(8 * events * self._words))

    def add(self, columns: SpanColumns, bits: array[int]) -> None:
        """Add to the bits of each span (`words` a row) what its events bring; the questions about it are answered."""
        self._columns.scan(columns)
        events = self._columns.rows
        if events > len(self._numbers):
            self._reserve(2 * events)
        self._begin()
        for at, answers in self._lookups:
            answers.add(self._columns, at, self._numbers, self._bits)
        self._terms.add(bits, self._columns, self._bits)

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.exceptval(-1)
    def _begin(self) -> cython.int:
        """What each event meets by having no name."""
        words: cython.Py_ssize_t = self._words
        width: cython.Py_ssize_t = self._columns.width
        cells: cython.const[cython.ulonglong][::1] = self._columns.cells
        bits: cython.ulonglong[::1] = self._bits
        event: cython.Py_ssize_t
        word: cython.Py_ssize_t
        for event in range(self._columns.rows):
            for word in range(words):
                bits[event * words + word] = 0 if cells[event * width + _EVENT_NAME + 1] else self._nameless[word]
        return 0
