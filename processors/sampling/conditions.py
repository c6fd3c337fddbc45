"""What a compiled policy asks of a trace's evidence, as a node of a Ballot (processors.sampling.ballot).

Each answers None-or-threshold: whether the policy keeps the trace, and at which 56-bit sampling threshold it did (0 =
certain).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from processors.sampling import ballot
from processors.sampling.answers import words_of
from processors.sampling.probability import NEVER

NS_PER_MS = 1_000_000
NO_BOUND = (1 << 64) - 1


class Condition(Protocol):
    """A policy, compiled."""

    def code(self, words: int) -> list[int]:
        """The node: kind, size, arguments; bit sets have `words` words."""


def _within(number: int | None) -> int:
    """A bound that fits into the code: none, and one that no span reaches (Go's largest number), are NO_BOUND."""
    return NO_BOUND if number is None else min(number, NO_BOUND)


def _node(kind: int, *arguments: int) -> list[int]:
    return [kind, 2 + len(arguments), *arguments]


@dataclass(frozen=True, slots=True)
class Always:
    """always_sample."""

    def code(self, words: int) -> list[int]:
        return _node(ballot.ALWAYS)


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Some span or log met a predicate of `mask`."""

    mask: int

    def code(self, words: int) -> list[int]:
        return _node(ballot.ANY_OF, *words_of(self.mask, words))


@dataclass(frozen=True, slots=True)
class NoneOf:
    """There are spans, and none of them met a predicate of `mask`."""

    mask: int

    def code(self, words: int) -> list[int]:
        return _node(ballot.NONE_OF, *words_of(self.mask, words))


@dataclass(frozen=True, slots=True)
class LongerThan:
    """`above_ns` < duration ≤ `up_to_ns` (None: no upper bound), to the nanosecond."""

    above_ns: int
    up_to_ns: int | None

    def code(self, words: int) -> list[int]:
        return _node(ballot.LONGER, _within(self.above_ns), _within(self.up_to_ns))


@dataclass(frozen=True, slots=True)
class LongerThanMillis:
    """The Collector 0.155: whole milliseconds, cut towards zero; at least `above` when there is no upper bound."""

    above: int
    up_to: int | None

    def code(self, words: int) -> list[int]:
        return _node(ballot.LONGER_MILLIS, _within(self.above), _within(self.up_to))


@dataclass(frozen=True, slots=True)
class SpanCount:
    """`fewest` ≤ spans ≤ `most` (None: no upper bound)."""

    fewest: int
    most: int | None

    def code(self, words: int) -> list[int]:
        return _node(ballot.SPAN_COUNT, _within(self.fewest), _within(self.most))


@dataclass(frozen=True, slots=True)
class WithinRate:
    """There are spans, and the bucket `index` has enough tokens for them; then they are spent."""

    index: int

    def code(self, words: int) -> list[int]:
        return _node(ballot.WITHIN_RATE, self.index)


@dataclass(frozen=True, slots=True)
class WithinBytes:
    """The same for the bytes of its spans."""

    index: int

    def code(self, words: int) -> list[int]:
        return _node(ballot.WITHIN_BYTES, self.index)


@dataclass(frozen=True, slots=True)
class Consistent:
    """Randomness reaches `limit`."""

    limit: int

    def code(self, words: int) -> list[int]:
        return _node(ballot.CONSISTENT, self.limit)


@dataclass(frozen=True, slots=True)
class Hashed:
    """The Collector's hash of the trace id, continued from `state`, is at most `limit` (−1: never).

    `share` is the 56-bit threshold of the same percentage: counts are adjusted as if it had decided.
    """

    state: int
    limit: int
    share: int

    def code(self, words: int) -> list[int]:
        ever = self.limit >= 0
        return _node(ballot.HASHED, self.state, ever, self.limit if ever else 0, min(self.share, NEVER - 1))


@dataclass(frozen=True, slots=True)
class OfIds:
    """The hash of the trace's key, continued from `state`, is from `lowest` to `highest`. Nothing to do with chance."""

    state: int
    lowest: int
    highest: int

    def code(self, words: int) -> list[int]:
        return _node(ballot.OF_IDS, self.state, self.lowest, self.highest)


@dataclass(frozen=True, slots=True)
class ByKey:
    """There are spans, and randomness reaches what sampler `index` says for the key of the features in `mask`."""

    index: int
    mask: int

    def code(self, words: int) -> list[int]:
        return _node(ballot.KEYED, self.index, self.mask)


@dataclass(frozen=True, slots=True)
class Opposite:
    """There are spans, and `part` does not keep the trace. No threshold says the rest of a share: certain."""

    part: Condition

    def code(self, words: int) -> list[int]:
        return _node(ballot.OPPOSITE, *self.part.code(words))


@dataclass(frozen=True, slots=True)
class FirstWithin:
    """There are spans, some part keeps the trace, and its share of limiter `index` has room for them.

    `falls_through` to the next part that keeps it; without, the first one's answer is final.
    """

    index: int
    falls_through: bool
    parts: tuple[Condition, ...]

    def code(self, words: int) -> list[int]:
        parts = (number for part in self.parts for number in part.code(words))
        return _node(ballot.COMPOSITE, self.index, self.falls_through, *parts)


@dataclass(frozen=True, slots=True)
class AllOf:
    """Every part keeps the trace; the rarest says how often. After one that does not, no rate is spent."""

    parts: tuple[Condition, ...]

    def code(self, words: int) -> list[int]:
        return _node(ballot.ALL_OF, *(number for part in self.parts for number in part.code(words)))
