"""The decision about traces, from their evidence alone: O(policies), no matter how many spans they have.

A policy of type drop beats everything, wherever it stands. Else every policy votes; one vote to keep is enough. The
first keeping policy in the order of the configuration is named.
The threshold is the lowest of all keeping policies, so an error trace that a 1 % policy also chose counts once, not a
hundred times.

Shadow policies are asked once that is settled, and counted.

Only the limiting policies look beyond the evidence, at the token buckets of the partition, and those that go by a
trace's key, at what is known of it (both in processors.sampling.limits).

Memory layout: policies are one array of numbers, nodes of (kind, size of the node, arguments), those inside an `and`
within its node. The records of a TraceTable are read where they lie, and a trace that nobody keeps never becomes an
object. `python -m bench.micro.span_bits` measures it.
"""

from __future__ import annotations

from array import array
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import cython

from processors.sampling import trace_table as records
from processors.sampling.limits import Limits

if TYPE_CHECKING:
    from processors.sampling.conditions import Condition

(
    ALWAYS, ANY_OF, NONE_OF, LONGER, LONGER_MILLIS, SPAN_COUNT, WITHIN_RATE, WITHIN_BYTES, CONSISTENT, HASHED, OPPOSITE,
    COMPOSITE, OF_IDS, KEYED, ALL_OF,
) = range(15)  # fmt: skip
"""The kinds of nodes; processors.sampling.conditions says what each asks."""

_ALWAYS = cython.declare(cython.ulonglong, ALWAYS)
_ANY_OF = cython.declare(cython.ulonglong, ANY_OF)
_NONE_OF = cython.declare(cython.ulonglong, NONE_OF)
_LONGER = cython.declare(cython.ulonglong, LONGER)
_LONGER_MILLIS = cython.declare(cython.ulonglong, LONGER_MILLIS)
_SPAN_COUNT = cython.declare(cython.ulonglong, SPAN_COUNT)
_WITHIN_RATE = cython.declare(cython.ulonglong, WITHIN_RATE)
_WITHIN_BYTES = cython.declare(cython.ulonglong, WITHIN_BYTES)
_CONSISTENT = cython.declare(cython.ulonglong, CONSISTENT)
_HASHED = cython.declare(cython.ulonglong, HASHED)
_OPPOSITE = cython.declare(cython.ulonglong, OPPOSITE)

_COMPOSITE = cython.declare(cython.ulonglong, COMPOSITE)
_OF_IDS = cython.declare(cython.ulonglong, OF_IDS)
_KEYED = cython.declare(cython.ulonglong, KEYED)
_ALL_OF = cython.declare(cython.ulonglong, ALL_OF)

_KEY = cython.declare(cython.Py_ssize_t, records.KEY)
_HIGH = cython.declare(cython.Py_ssize_t, records.HIGH)
_MIN_START = cython.declare(cython.Py_ssize_t, records.MIN_START)
_MAX_END = cython.declare(cython.Py_ssize_t, records.MAX_END)
_RANDOM = cython.declare(cython.Py_ssize_t, records.RANDOM)
_BYTES = cython.declare(cython.Py_ssize_t, records.BYTES)
_BITS = cython.declare(cython.Py_ssize_t, records.BITS)
_SPANS = cython.declare(cython.Py_ssize_t, records.SPANS)
_SMALL = cython.declare(cython.Py_ssize_t, records.SMALL)
_U64_MAX = cython.declare(cython.ulonglong, records.U64_MAX)
_I64_MAX = cython.declare(cython.ulonglong, records.U64_MAX >> 1)
_RANDOM_MASK = cython.declare(cython.ulonglong, (1 << 56) - 1)
_FNV_PRIME = cython.declare(cython.ulonglong, 0x100000001B3)
_NS_PER_MS = cython.declare(cython.ulonglong, 1_000_000)
_NOT_KEPT = cython.declare(cython.longlong, -1)


@cython.cclass
class Ballot:
    """Compiled policies, asked about one record of a TraceTable after another.

    `conditions`, `drops` and `shadows` (name, condition) are in the order of the configuration; bit sets have `words`
    words. `shadow_drops` are the names of those shadows that would drop, `shadow_limits` of those that spend something
    when they are asked: of a trace that a drop policy dropped they are not.

    What is counted since `clear`, in traces: `dropped_by` each drop policy; `together[i * len(names) + j]`, voted for
    by both i and j (i = j: by i), of those that no drop policy dropped; `only`, voted for by this one alone. `shadowed`
    were matched by a shadow, and `turned` would have had another outcome with it.
    """

    names = cython.declare(tuple, visibility="readonly")
    drop_names = cython.declare(tuple, visibility="readonly")
    policy = cython.declare(cython.Py_ssize_t, visibility="readonly")  # the number of the one that kept the last trace
    threshold = cython.declare(cython.longlong, visibility="readonly")
    shadow_names = cython.declare(tuple, visibility="readonly")
    dropped_by = cython.declare(object, visibility="readonly")
    together = cython.declare(object, visibility="readonly")
    only = cython.declare(object, visibility="readonly")
    shadowed = cython.declare(object, visibility="readonly")
    turned = cython.declare(object, visibility="readonly")
    _words: cython.Py_ssize_t
    _code: cython.ulonglong[::1]
    _drops: cython.Py_ssize_t  # nodes before the policies that keep
    _nodes: cython.Py_ssize_t  # without the shadows, which follow
    _shadows: cython.Py_ssize_t
    _shadows_at: cython.Py_ssize_t
    _would_drop: cython.uchar[::1]
    _spends: cython.uchar[::1]
    _voters: cython.Py_ssize_t[::1]
    _together: cython.ulonglong[::1]
    _only: cython.ulonglong[::1]
    _shadowed: cython.ulonglong[::1]
    _turned: cython.ulonglong[::1]
    _limits: object
    _sets: object
    _record: cython.Py_ssize_t
    _deadline: cython.longlong
    _duration: cython.ulonglong
    _negative: cython.bint

    def __init__(
        self,
        conditions: Sequence[tuple[str, Condition]],
        drops: Sequence[tuple[str, Condition]],
        words: int,
        shadows: Sequence[tuple[str, Condition]] = (),
        shadow_drops: Collection[str] = (),
        shadow_limits: Collection[str] = (),
    ) -> None:
        self.names = tuple(name for name, _ in conditions)
        self.drop_names = tuple(name for name, _ in drops)
        self.policy = -1
        self.threshold = 0
        self._words = words
        self._drops = len(drops)
        self._nodes = len(drops) + len(conditions)
        self.shadow_names = tuple(name for name, _ in shadows)
        self._shadows = len(shadows)
        self._spends = array("B", [int(name in shadow_limits) for name in self.shadow_names] or [0])
        self._would_drop = array("B", [int(name in shadow_drops) for name in self.shadow_names] or [0])
        self._voters = array("q", bytes(8 * max(1, len(conditions))))
        self._shadows_at = sum(len(condition.code(words)) for _, condition in (*drops, *conditions))
        everything = (*drops, *conditions, *shadows)
        self._code = array("Q", [n for _, condition in everything for n in condition.code(words)] or [0])
        self._limits = self._sets = None
        self._record = 0
        self.clear()

    def clear(self) -> None:
        """Count anew."""
        voting = self._nodes - self._drops
        self.dropped_by = array("Q", bytes(8 * self._drops))
        self.together = self._together = array("Q", bytes(8 * voting * voting) or bytes(8))
        self.only = self._only = array("Q", bytes(8 * voting) or bytes(8))
        self.shadowed = self._shadowed = array("Q", bytes(8 * self._shadows) or bytes(8))
        self.turned = self._turned = array("Q", bytes(8 * self._shadows) or bytes(8))

    @cython.boundscheck(False)
    @cython.wraparound(False)
    def next_kept(self, table: records.TraceTable, first: int, count: int, limits: Limits) -> int:
        """The place of the first trace from `first` on, of the `count` that are due, that a policy keeps.

        `count` when none of them is kept. Those passed over are dropped.
        """
        due: cython.const[cython.int][::1] = table.due_records
        deadlines: cython.const[cython.longlong][::1] = table.due_deadlines
        wide: cython.const[cython.ulonglong][::1] = table.wide
        small: cython.const[cython.int][::1] = table.small
        place: cython.Py_ssize_t
        if count > len(due) or count > len(deadlines):
            raise IndexError("fewer traces are due")
        self._limits, self._sets = limits, table.sets
        for place in range(first, count):
            self._deadline = deadlines[place]
            if self._kept(wide, small, due[place]):
                return place
        return count

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.exceptval(-1)
    def _kept(
        self,
        wide: cython.const[cython.ulonglong][::1],
        small: cython.const[cython.int][::1],
        record: cython.Py_ssize_t,
    ) -> cython.int:
        self._record = record
        at: cython.Py_ssize_t = record * (_BITS + self._words)
        spans: cython.ulonglong = small[record * _SMALL + _SPANS]
        node: cython.Py_ssize_t
        position: cython.Py_ssize_t = 0
        threshold: cython.longlong
        dropped: cython.bint = False
        voters: cython.Py_ssize_t = 0
        self._negative = False
        self._duration = 0
        if wide[at + _MIN_START] != _U64_MAX and wide[at + _MAX_END] != 0:
            self._negative = wide[at + _MAX_END] < wide[at + _MIN_START]
            if self._negative:
                self._duration = wide[at + _MIN_START] - wide[at + _MAX_END]
            else:
                self._duration = wide[at + _MAX_END] - wide[at + _MIN_START]
        self.policy = -1
        for node in range(self._nodes):
            threshold = self._threshold(position, wide, at, spans)
            position += self._code[position + 1]
            if threshold == _NOT_KEPT:
                continue
            if node < self._drops:
                self.dropped_by[node] += 1
                dropped = True
                break
            self._voters[voters] = node - self._drops
            voters += 1
            if self.policy < 0:
                self.policy = node - self._drops
                self.threshold = threshold
            elif threshold < self.threshold:
                self.threshold = threshold
        self._count(voters)
        if self._shadows:
            self._ask_shadows(wide, at, spans, dropped)
        return self.policy >= 0

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.exceptval(-1)
    def _count(self, voters: cython.Py_ssize_t) -> cython.int:
        voting: cython.Py_ssize_t = self._nodes - self._drops
        one: cython.Py_ssize_t
        other: cython.Py_ssize_t
        for one in range(voters):
            for other in range(voters):
                self._together[self._voters[one] * voting + self._voters[other]] += 1
        if voters == 1:
            self._only[self._voters[0]] += 1
        return 0

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.exceptval(-1)
    def _ask_shadows(
        self, wide: cython.const[cython.ulonglong][::1], at: cython.Py_ssize_t, spans: cython.ulonglong,
        dropped: cython.bint,
    ) -> cython.int:  # fmt: skip
        """Of a trace whose outcome is known; `dropped`: a drop policy did, and no vote could have kept it."""
        position: cython.Py_ssize_t = self._shadows_at
        shadow: cython.Py_ssize_t
        threshold: cython.longlong
        for shadow in range(self._shadows):
            if dropped and self._spends[shadow]:
                position += self._code[position + 1]
                continue
            threshold = self._threshold(position, wide, at, spans)
            position += self._code[position + 1]
            if threshold != _NOT_KEPT:
                self._shadowed[shadow] += 1
                if self._would_drop[shadow]:
                    self._turned[shadow] += self.policy >= 0
                else:
                    self._turned[shadow] += self.policy < 0 and not dropped
        return 0

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.exceptval(-2)
    def _threshold(
        self,
        node: cython.Py_ssize_t,
        wide: cython.const[cython.ulonglong][::1],
        at: cython.Py_ssize_t,
        spans: cython.ulonglong,
    ) -> cython.longlong:
        """At which 56-bit threshold a condition keeps the trace (0 = certain), -1 when it does not."""
        kind: cython.ulonglong = self._code[node]
        end: cython.Py_ssize_t = node + self._code[node + 1]
        word: cython.Py_ssize_t
        met: cython.bint = False
        number: cython.ulonglong
        negative: cython.bint
        share: cython.longlong
        highest: cython.longlong
        first: cython.Py_ssize_t
        node += 2
        if kind == _ALWAYS:
            return 0
        if kind <= _NONE_OF:  # ANY_OF too
            for word in range(self._words):
                met |= wide[at + _BITS + word] & self._code[node + word] != 0
            return 0 if met == (kind == _ANY_OF) and (met or spans) else -1
        if kind == _LONGER:
            met = not self._negative and self._code[node] < self._duration <= self._code[node + 1]
            return 0 if met and spans else -1
        if kind == _LONGER_MILLIS:
            number, negative = self._duration, self._negative
            if number and (wide[at + _MIN_START] ^ wide[at + _MAX_END]) > _I64_MAX:
                # Times of 2^63 ns and more are before 1970 to the Collector (pcommon.Timestamp.AsTime), and a duration
                # is as far as 64 bits reach (Go's Time.Sub).
                number, negative = min(_U64_MAX - number + 1, _I64_MAX), not negative
            number //= _NS_PER_MS  # cut towards zero
            met = not negative or number == 0
            if self._code[node + 1] == _U64_MAX:
                met = met and number >= self._code[node]
            else:
                met = met and self._code[node] < number <= self._code[node + 1]
            return 0 if met and spans else -1
        if kind == _SPAN_COUNT:
            return 0 if spans and self._code[node] <= spans <= self._code[node + 1] else -1
        if kind == _WITHIN_RATE:
            return 0 if spans and self._limits.at(self._deadline).take(self._code[node], spans) else -1
        if kind == _WITHIN_BYTES:
            number = wide[at + _BYTES]
            return 0 if spans and self._limits.at(self._deadline).take(self._code[node], number) else -1
        if kind == _CONSISTENT:
            return self._code[node] if self._random(wide, at) >= self._code[node] else -1
        if kind == _HASHED:
            if self._code[node + 1] == 0:
                return -1
            number = self._hash(self._hash(self._code[node], wide[at + _HIGH]), wide[at + _KEY])
            return self._code[node + 3] if number <= self._code[node + 2] else -1
        if kind == _OPPOSITE:
            return 0 if spans and self._threshold(node, wide, at, spans) == _NOT_KEPT else -1
        if kind == _OF_IDS:
            number = self._hash(self._code[node], wide[at + _KEY])
            return 0 if self._code[node + 1] <= number <= self._code[node + 2] else -1
        if kind == _KEYED:
            return self._by_key(node, wide, at, spans)
        if kind == _COMPOSITE:
            return self._first_within(node, end, wide, at, spans)
        first = node
        highest = 0  # ALL_OF: the rarest part says how often; after one that does not keep it no rate is spent
        while node < end:
            share = self._threshold(node, wide, at, spans)
            if share == _NOT_KEPT:
                self._take_back(first, node)
                return -1
            highest = max(highest, share)
            node += self._code[node + 1]
        return highest

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.exceptval(-2)
    def _first_within(
        self,
        node: cython.Py_ssize_t,
        end: cython.Py_ssize_t,
        wide: cython.const[cython.ulonglong][::1],
        at: cython.Py_ssize_t,
        spans: cython.ulonglong,
    ) -> cython.longlong:
        """The threshold of the first part that keeps the trace and has room for it in its share of the rate."""
        limiter: cython.ulonglong = self._code[node]
        falls_through: cython.bint = self._code[node + 1] != 0
        part: cython.Py_ssize_t = 0
        threshold: cython.longlong
        node += 2
        while node < end and spans:
            threshold = self._threshold(node, wide, at, spans)
            if threshold != _NOT_KEPT:
                if self._limits.at(self._deadline).take(limiter, spans, part):
                    return threshold
                self._take_back(node, node + self._code[node + 1])
                if not falls_through:
                    return -1
            node += self._code[node + 1]
            part += 1
        return -1

    @cython.cfunc
    @cython.boundscheck(False)
    @cython.wraparound(False)
    @cython.exceptval(-1)
    def _take_back(self, node: cython.Py_ssize_t, end: cython.Py_ssize_t) -> cython.int:
        """Nodes up to `end` would have kept the trace and another one did not: who counts what is kept has not."""
        while node < end:
            if self._code[node] == _KEYED:
                key = self._sets.key(self._record, self._code[node + 3])
                self._limits.take_back(self._code[node + 2], key)
            elif self._code[node] == _ALL_OF:
                self._take_back(node + 2, node + self._code[node + 1])
            node += self._code[node + 1]
        return 0

    @cython.cfunc
    @cython.exceptval(check=False)
    def _random(self, wide: cython.const[cython.ulonglong][::1], at: cython.Py_ssize_t) -> cython.ulonglong:
        """The 56-bit randomness of a trace."""
        number: cython.ulonglong = wide[at + _RANDOM]
        return wide[at + _KEY] & _RANDOM_MASK if number == _U64_MAX else number

    @cython.cfunc
    @cython.exceptval(-2)
    def _by_key(
        self,
        node: cython.Py_ssize_t,
        wide: cython.const[cython.ulonglong][::1],
        at: cython.Py_ssize_t,
        spans: cython.ulonglong,
    ) -> cython.longlong:
        """The threshold that a sampler has for the trace's key now, if its randomness reaches it."""
        threshold: cython.ulonglong
        if spans == 0:
            return -1
        key = self._sets.key(self._record, self._code[node + 1])
        threshold = self._limits.at(self._deadline).threshold(self._code[node], key, spans)
        return threshold if self._random(wide, at) >= threshold else -1

    @cython.cfunc
    @cython.exceptval(check=False)
    def _hash(self, state: cython.ulonglong, half: cython.ulonglong) -> cython.ulonglong:
        """FNV-1a, 64 bits, of eight bytes, the highest first."""
        shift: cython.int
        for shift in range(56, -8, -8):
            state = ((state ^ ((half >> shift) & 0xFF)) * _FNV_PRIME) & _U64_MAX
        return state
