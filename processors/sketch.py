"""How many distinct values a limit refused, and which of them were counted most: bounded memory, any number of values.

Two Apache DataSketches per generation: HyperLogLog for the number, frequent items (a space-saving sketch, Anderson et
al. 2017) for the most counted. A generation lasts one idle timeout; the present and the one before it are told, so an
answer is about the last one to two idle timeouts, as the values in use are.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from datasketches import frequent_items_error_type, frequent_strings_sketch, hll_sketch, hll_union, tgt_hll_type

# 2^11 registers of 4 bits: 1 KiB at most, few values far less; a standard error of 1.04 / sqrt(2^11) = 2.3 %.
LOG2_REGISTERS = 11
STANDARD_ERROR = 0.023
# At most 3/4 * 2^6 = 48 values are followed: whatever had more than 3.5 / 2^6 = 1/18 of the refused observations is.
LOG2_FOLLOWED = 6
# Characters of a refused value that are followed and told; longer ones that agree so far are taken for one offender.
LONGEST_VALUE = 128
MOST_WEIGHT = 2.0**53


class Refused:
    """Values that one limit refused. Weights are observations."""

    __slots__ = ("_distinct", "_followed", "_previous_distinct", "_previous_followed")

    def __init__(self, state: Sequence[bytes] = ()) -> None:
        """Empty, or what `state()` gave."""
        self._distinct, self._followed = _generation(state[0:2])
        self._previous_distinct, self._previous_followed = _generation(state[2:4])

    def add(self, value: str, weight: float) -> None:
        """One refused value. A weight below 1 counts as 1, one above MOST_WEIGHT (sums are floats) as that."""
        self._distinct.update(value)
        self._followed.update(value[:LONGEST_VALUE], int(max(1.0, min(MOST_WEIGHT, weight))))

    def together_with(self, active: Iterable[str]) -> int:
        """Distinct values, these and `active` taken together, within the error of HyperLogLog."""
        union = hll_union(LOG2_REGISTERS)
        union.update(self._distinct)
        union.update(self._previous_distinct)
        exact = 0
        for value in active:
            union.update(value)
            exact += 1
        return max(exact, round(float(union.get_estimate())))

    def offenders(self, most: int) -> tuple[tuple[str, int], ...]:
        """The values refused most with the least that each was counted, the most first; ties by value."""
        both = frequent_strings_sketch(LOG2_FOLLOWED)
        both.merge(self._followed)
        both.merge(self._previous_followed)
        found = both.get_frequent_items(frequent_items_error_type.NO_FALSE_NEGATIVES)
        least = [(value, int(lower)) for value, _, lower, _ in found]
        return tuple(sorted(least, key=lambda item: (-item[1], item[0]))[:most])

    def rotate(self) -> None:
        """Begin a generation; the one before the present is forgotten."""
        self._previous_distinct, self._previous_followed = self._distinct, self._followed
        self._distinct, self._followed = _generation(())

    @property
    def empty(self) -> bool:
        """Nothing was refused in either generation."""
        return bool(self._distinct.is_empty() and self._previous_distinct.is_empty())

    def state(self) -> tuple[bytes, ...]:
        """What `Refused(state)` goes on from; nothing if empty.

        So does this one: what a sketch forgets when it is full depends on the order that it holds its values in, and a
        restart shall change nothing.
        """
        if self.empty:
            return ()
        state = (
            self._distinct.serialize_compact(),
            self._followed.serialize(),
            self._previous_distinct.serialize_compact(),
            self._previous_followed.serialize(),
        )
        self._distinct, self._followed = _generation(state[:2])
        self._previous_distinct, self._previous_followed = _generation(state[2:])
        return state


def _generation(state: Sequence[bytes]) -> tuple[hll_sketch, frequent_strings_sketch]:
    if not state:
        return hll_sketch(LOG2_REGISTERS, tgt_hll_type.HLL_4), frequent_strings_sketch(LOG2_FOLLOWED)
    return hll_sketch.deserialize(state[0]), frequent_strings_sketch.deserialize(state[1])
