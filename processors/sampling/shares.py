"""Shares of one rate: what a composite policy gives each of its sub-policies.

By default a share is a guarantee, not a wall. Each sub-policy has a bucket that fills with its share; what does not
fit, and what nobody was given, goes into a pool that any of them may take from. So a quiet sub-policy's share is used
by the others, a busy one still finds its own, and together they never exceed the total: all buckets and the pool hold
one second of it, and more only for traces that are large for their partition (processors.sampling.limits).

With `compat: otel`: the Collector's counters (processor/tailsamplingprocessor/internal/sampling/composite.go). Each
sub-policy has its share in every second, of stream time here, and what it does not use is lost.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from processors.sampling.limits import LONGEST_MS, ROOM, UNITS, Bucket, BucketState, Limiter


@dataclass(frozen=True, slots=True)
class Shares:
    """What a policy allows over all partitions: `total` spans per second, of which its parts have `parts`."""

    policy: str
    total: int
    parts: tuple[int, ...]

    @property
    def burst(self) -> int:
        """Spans of the largest trace that passes."""
        return self.total

    def limiter(self, partitions: int) -> Limiter:
        """It begins full."""
        return _Pooled(self, partitions)


@dataclass(frozen=True, slots=True)
class SharesBySecond:
    """The same as the Collector has it: every part is on its own, and a second at a time."""

    policy: str
    total: int
    parts: tuple[int, ...]

    @property
    def limits(self) -> list[int]:
        """Spans per second of each part."""
        return [min(part, self.total) for part in self.parts]

    @property
    def burst(self) -> int:
        """Spans of the largest trace that passes."""
        return max(self.limits)

    def limiter(self, partitions: int) -> Limiter:
        """It begins with nothing spent."""
        return _BySecond(self, partitions)


class _Pooled:
    """A bucket for each part, and behind them the pool, which has what the parts leave free of one second.

    A part passes what its bucket holds, and when that is full also what is larger, as a rate does: the debt is its own.
    What it lacks the pool lends as far as it can, or all of it when the pool is full. A part has room for ROOM traces
    like its last one, whoever asks, and the pool for as many like the one that asks.
    """

    def __init__(self, shares: Shares, partitions: int) -> None:
        self._largest, self._total, self._longest = shares.burst, shares.total * UNITS, shares.total * LONGEST_MS
        self._token = UNITS * partitions  # units of a span
        self._parts = [Bucket(part * UNITS, part, part * UNITS) for part in shares.parts]
        self._sizes = [0] * len(shares.parts)  # spans of the last trace of each
        nobodys = shares.total - sum(shares.parts)
        self._pool = Bucket(nobodys * UNITS, nobodys, nobodys * UNITS)

    def _room(self, part: int) -> int:
        wanted = min(self._largest, ROOM * self._sizes[part]) * self._token
        return min(wanted, LONGEST_MS * self._parts[part].per_ms)

    def take(self, now: int, part: int, size: int) -> bool:
        if size > self._largest:
            return False
        own, pool, cost = self._parts[part], self._pool, size * self._token
        self._fill(now, part, size)
        lent = max(0, cost - max(0, own.tokens))
        if own.capacity and own.tokens >= min(cost, own.capacity):
            lent = min(lent, max(0, pool.tokens))
        elif pool.tokens < min(lent, pool.capacity):
            return False
        own.tokens -= cost - lent
        pool.tokens -= lent
        return True

    def _fill(self, now: int, part: int, size: int) -> None:
        self._sizes[part] = size
        over = sum([bucket.fill(now, room=self._room(index)) for index, bucket in enumerate(self._parts)])
        held = [max(0, bucket.tokens) for bucket in self._parts]
        within = [min(tokens, bucket.capacity) for tokens, bucket in zip(held, self._parts, strict=True)]
        self._pool.capacity = self._total - sum(within)
        self._pool.fill(now, over, room=min(ROOM * size * self._token, self._longest - sum(held)))

    def state(self) -> list[BucketState]:
        """Of the parts and the pool, and (size, -1) of the last trace of each part."""
        return [*(bucket.state() for bucket in (*self._parts, self._pool)), *((size, -1) for size in self._sizes)]

    def restore(self, state: Sequence[BucketState]) -> None:
        count = len(self._parts)
        largest = self._largest * self._token
        self._sizes = [min(size, self._largest) for size, _ in state[count + 1 :]]
        for part, bucket in enumerate(self._parts):
            bucket.restore(state[part], largest, self._room(part))
        self._pool.restore(state[count], largest, self._longest)


class _BySecond:
    """What each part has spent in this second, in units of 1/N span.

    A trace above this partition's share passes when nothing is spent yet, and what is above goes into the seconds
    that follow. With one partition that never happens, and every second begins anew.
    """

    def __init__(self, shares: SharesBySecond, partitions: int) -> None:
        self._token = partitions
        self._limits = shares.limits
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
