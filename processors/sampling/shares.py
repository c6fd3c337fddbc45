"""Shares of one rate: what a composite policy gives each of its sub-policies.

By default a share is a guarantee, not a wall. Each sub-policy has a bucket that fills with its share; what does not
fit, and what nobody was given, goes into a pool that any of them may take from. So a quiet sub-policy's share is used
by the others, a busy one still finds its own, and together they never exceed the total: all buckets and the pool hold
one second of it.

With `compat: otel`: the Collector's counters (processor/tailsamplingprocessor/internal/sampling/composite.go). Each
sub-policy has its share in every second, of stream time here, and what it does not use is lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from processors.sampling.limits import UNITS, Bucket, BucketState, Limiter


@dataclass(frozen=True, slots=True)
class Shares:
    """What a policy allows over all partitions: `total` spans per second, of which its parts have `parts`.

    `total` is also the largest trace. Buckets hold one second's worth.
    """

    policy: str
    total: int
    parts: tuple[int, ...]

    def limiter(self, partitions: int) -> Limiter:
        """It begins full."""
        return _Pooled(self, partitions)


@dataclass(frozen=True, slots=True)
class SharesBySecond:
    """The same as the Collector has it: every part is on its own, and a second at a time."""

    policy: str
    total: int
    parts: tuple[int, ...]

    def limiter(self, partitions: int) -> Limiter:
        """It begins with nothing spent."""
        return _BySecond(self, partitions)


class _Pooled:
    """A bucket for each part, and behind them the pool."""

    def __init__(self, shares: Shares, partitions: int) -> None:
        self._largest = shares.total
        self._token = UNITS * partitions  # units of a span
        self._parts = [Bucket(part * UNITS, part, part * UNITS) for part in shares.parts]
        self._capacity, nobodys = shares.total * UNITS, shares.total - sum(shares.parts)
        self._pool = Bucket(self._capacity, nobodys, nobodys * UNITS)
        self._full = nobodys * UNITS  # what the pool has when no part has taken anything

    def take(self, now: int, part: int, size: int) -> bool:
        self._pool.fill(now, sum([bucket.fill(now) for bucket in self._parts]))
        own, pool, cost = self._parts[part], self._pool, size * self._token
        pool.tokens = min(pool.tokens, self._capacity - sum([bucket.tokens for bucket in self._parts]))
        borrowed = max(0, cost - own.tokens)
        if size > self._largest or (borrowed and own.tokens + pool.tokens < min(cost, own.capacity + self._full)):
            return False
        own.tokens -= cost - borrowed
        pool.tokens -= borrowed
        return True

    def state(self) -> list[BucketState]:
        return [bucket.state() for bucket in (*self._parts, self._pool)]

    def restore(self, state: Sequence[BucketState]) -> None:
        for bucket, known in zip((*self._parts, self._pool), state, strict=True):
            bucket.restore(known, self._largest * self._token)


class _BySecond:
    """What each part has spent in this second, in units of 1/N span.

    A trace above this partition's share passes when nothing is spent yet, and what is above goes into the seconds
    that follow. With one partition that never happens, and every second begins anew.
    """

    def __init__(self, shares: SharesBySecond, partitions: int) -> None:
        self._token = partitions
        self._limits = [min(part, shares.total) for part in shares.parts]
        self._spent = [0] * len(shares.parts)
        self._now = -1  # ms of stream time

    def take(self, now: int, part: int, size: int) -> bool:
        seconds = now // UNITS - self._now // UNITS
        if seconds > 0 and self._now >= 0:
            self._spent = [max(0, n - seconds * limit) for n, limit in zip(self._spent, self._limits, strict=True)]
        self._now = max(now, self._now)
        limit, spent = self._limits[part], self._spent[part] + size * self._token
        if size > limit or (self._spent[part] and spent > limit):
            return False
        self._spent[part] = spent
        return True

    def state(self) -> list[BucketState]:
        return [(spent, self._now) for spent in self._spent]

    def restore(self, state: Sequence[BucketState]) -> None:
        self._spent, self._now = [spent for spent, _ in state], max(now for _, now in state)
