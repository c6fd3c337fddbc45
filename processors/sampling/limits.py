"""Rates of spans or bytes, held by token buckets in stream time.

A bucket fills with the deadlines of the traces that reach it, not with a wall clock, and its state is part of the
checkpoint. So a backlog passes at the configured rate of *its* time, and a new owner decides as the old one would
have. Partition i of N has a bucket of its own with a share of 1/N in rate and capacity.

All arithmetic is in whole units of 1/(1000 N) span (or byte), so it does not matter how often a bucket is filled.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

UNITS = 1000  # a millisecond adds `per_second` units


class Rate(NamedTuple):
    """What a policy allows over all partitions, in spans or bytes: `burst` is the capacity, and the largest trace."""

    policy: str
    per_second: int
    burst: int


@dataclass(slots=True)
class _Bucket:
    tokens: int
    filled: int | None = None  # ms of stream time


class Limits:
    """The buckets of one partition, one for each of a plan's rates, in order."""

    def __init__(self, rates: Sequence[Rate], partitions: int) -> None:
        self._rates = rates
        self._token = UNITS * partitions  # units of a span or byte
        self._buckets = [_Bucket(rate.burst * UNITS) for rate in rates]
        self.now = 0

    def at(self, time: int) -> Limits:
        """The same buckets, at stream time `time` (ms)."""
        self.now = time
        return self

    def take(self, index: int, size: int) -> bool:
        """Whether a trace of `size` spans or bytes passes; then it has spent them.

        A trace above the burst never passes. One above this partition's share of it passes a full bucket and leaves
        it in debt: otherwise a small rate over many partitions would let no trace pass.
        """
        rate, bucket = self._rates[index], self._buckets[index]
        capacity = rate.burst * UNITS
        if bucket.filled is None:
            bucket.filled = self.now
        elif self.now > bucket.filled:
            bucket.tokens = min(capacity, bucket.tokens + (self.now - bucket.filled) * rate.per_second)
            bucket.filled = self.now
        cost = size * self._token
        if size > rate.burst or bucket.tokens < min(cost, capacity):
            return False
        bucket.tokens -= cost
        return True

    def state(self) -> dict[str, list[tuple[int, int]]]:
        """Policy → (units, ms of stream time) of its buckets, for the checkpoint; untouched ones are left out."""
        state: dict[str, list[tuple[int, int]]] = {}
        for rate, bucket in zip(self._rates, self._buckets, strict=True):
            state.setdefault(rate.policy, []).append((bucket.tokens, -1 if bucket.filled is None else bucket.filled))
        return {policy: buckets for policy, buckets in state.items() if any(filled >= 0 for _, filled in buckets)}

    def restore(self, state: Mapping[str, Sequence[tuple[int, int]]]) -> None:
        """Continue from a checkpoint. Where it has another number of buckets for a policy, or none, they start full."""
        mine: dict[str, list[int]] = {}
        for index, rate in enumerate(self._rates):
            mine.setdefault(rate.policy, []).append(index)
        for policy, indices in mine.items():
            known = state.get(policy, ())
            if len(known) != len(indices):
                continue
            for index, (tokens, filled) in zip(indices, known, strict=True):
                capacity = self._rates[index].burst * UNITS
                self._buckets[index] = _Bucket(min(tokens, capacity), None if filled < 0 else filled)


NO_LIMITS = Limits((), 1)
