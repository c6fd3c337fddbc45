"""Rates of spans or bytes, held by token buckets in stream time; and who holds the samplers that go by keys.

A bucket fills with the deadlines of the traces that reach it, not with a wall clock, and its state is part of the
checkpoint. So a backlog passes at the configured rate of *its* time, and a new owner decides as the old one would
have. Partition i of N has a bucket of its own with a share of 1/N in rate and capacity.

All arithmetic is in whole units of 1/(1000 N) span (or byte), so it does not matter how often a bucket is filled.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

from processors.sampling.adaptive import Keyed, KeyState

UNITS = 1000  # a millisecond adds `per_second` units
ROOM = 5  # traces like the one that asks: with room for one, random gaps between them lose a third at half the rate
LONGEST_MS = 15_000  # of its own rate that a bucket holds for the sake of such room
BucketState = tuple[int, int]
"""Units, and ms of stream time; that is -1 while nobody has come."""


class Rate(NamedTuple):
    """What a policy allows over all partitions, in spans or bytes: `burst` is the capacity, and the largest trace."""

    policy: str
    per_second: int
    burst: int

    def limiter(self, partitions: int) -> Limiter:
        """It begins full."""
        return _One(self, partitions)


class Allowance(Protocol):
    """What a policy allows over all partitions."""

    @property
    def policy(self) -> str:
        """The policy of the configuration."""

    @property
    def burst(self) -> int:
        """Spans or bytes of the largest trace that passes."""

    def limiter(self, partitions: int) -> Limiter:
        """What holds one partition of N to it."""


class Limiter(Protocol):
    """What one policy has left in one partition: one bucket or several."""

    def take(self, now: int, part: int, size: int) -> bool:
        """Whether a trace of `size` spans or bytes that `part` of the policy keeps passes; then it has spent them."""

    def state(self) -> list[BucketState]:
        """Of its buckets; `restore` takes it back."""

    def restore(self, state: Sequence[BucketState]) -> None:
        """Go on with the state of as many buckets."""


@runtime_checkable
class Shared(Protocol):
    """A limiter whose share of the whole follows what other partitions say."""

    def allot(self, index: int, states: Sequence[Sequence[BucketState] | None], now: int) -> None:
        """The newest state of it in each partition, () before one is told, None if that is silent.

        This is partition `index`, at stream time `now`.
        """


@dataclass(slots=True)
class Bucket:
    """Up to `capacity` units, of which a millisecond brings `per_ms`; a large trace may leave it in debt."""

    capacity: int
    per_ms: int
    tokens: int
    filled: int = -1  # ms of stream time

    def fill(self, now: int, more: int = 0, room: int = 0) -> int:
        """Bring it up to `now` (ms), with `more` units from elsewhere; how many units did not fit.

        It may hold `room`, if that is more than its capacity.
        """
        if self.filled < 0:
            self.filled = now
        elif now > self.filled:
            more += (now - self.filled) * self.per_ms
            self.filled = now
        over = max(0, self.tokens + more - max(self.capacity, room))
        self.tokens += more - over
        return over

    def spend(self, cost: int) -> bool:
        """Take `cost` units, if they are there; of a full bucket more than it holds may be taken."""
        if self.tokens < min(cost, self.capacity):
            return False
        self.tokens -= cost
        return True

    def state(self) -> BucketState:
        """Of a checkpoint."""
        return self.tokens, self.filled

    def restore(self, state: BucketState, largest: int, room: int = 0) -> None:
        """Go on from there, with no more than fits, and no deeper in debt than a trace of `largest` units leaves it.

        The rate may have been another one, or counted bytes.
        """
        least = min(0, self.capacity - largest)
        self.tokens, self.filled = max(least, min(state[0], max(self.capacity, room))), state[1]


class _One:
    """One bucket.

    A trace above the burst never passes. One above this partition's share of it passes a full bucket and leaves it in
    debt: otherwise a small rate over many partitions would let no trace pass. Where that share has room for few traces
    there is room for ROOM of them, within the whole burst and LONGEST_MS: what a gap between two of them saves is not
    lost. It begins without.
    """

    def __init__(self, rate: Rate, partitions: int) -> None:
        self._burst = rate.burst
        self._token = UNITS * partitions  # units of a span or byte
        self._bucket = Bucket(rate.burst * UNITS, rate.per_second, rate.burst * UNITS)
        self._room = min(rate.burst * self._token, LONGEST_MS * rate.per_second)

    def take(self, now: int, part: int, size: int) -> bool:
        self._bucket.fill(now, room=min(ROOM * size * self._token, self._room))
        return size <= self._burst and self._bucket.spend(size * self._token)

    def state(self) -> list[BucketState]:
        return [self._bucket.state()]

    def restore(self, state: Sequence[BucketState]) -> None:
        self._bucket.restore(state[0], self._burst * self._token, self._room)


class Limits:
    """What a partition's decisions depend on beside evidence: buckets for each of a plan's rates, and its samplers."""

    def __init__(self, rates: Sequence[Allowance], partitions: int, samplers: Sequence[Keyed] = ()) -> None:
        self._limiters = [(rate.policy, rate.limiter(partitions)) for rate in rates]
        self._samplers = [(one.policy, one.sampler(partitions)) for one in samplers]
        self.now = 0

    def at(self, time: int) -> Limits:
        """The same, at stream time `time` (ms)."""
        self.now = time
        return self

    def take(self, index: int, size: int, part: int = 0) -> bool:
        """Whether a trace of `size` spans or bytes passes; then it has spent them."""
        return self._limiters[index][1].take(self.now, part, size)

    def threshold(self, index: int, key: int, spans: int) -> int:
        """At which 56-bit threshold sampler `index` keeps a trace with this key; it has seen it then."""
        return self._samplers[index][1].threshold(self.now, key, spans)

    def take_back(self, index: int, key: int) -> None:
        """The trace that `threshold` was asked about last, and would have kept, is not kept here after all."""
        self._samplers[index][1].take_back(key)

    def shared(self) -> dict[str, int]:
        """Policy → traces since the last call whose key had no place of its own."""
        found: dict[str, int] = {}
        for policy, sampler in self._samplers:
            if sampler.shared:
                found[policy] = found.get(policy, 0) + sampler.shared
                sampler.shared = 0
        return found

    def keys(self) -> dict[str, list[list[KeyState]]]:
        """Policy → what each of its samplers knows, for the checkpoint; those that have seen no trace are left out."""
        state: dict[str, list[list[KeyState]]] = {}
        for policy, sampler in self._samplers:
            state.setdefault(policy, []).append(sampler.state())
        return {policy: each for policy, each in state.items() if any(each)}

    def restore_keys(self, state: Mapping[str, Sequence[Sequence[KeyState]]]) -> None:
        """Continue from a checkpoint; a policy that has another number of samplers there, or none, begins anew."""
        for policy in dict(self._samplers):
            mine = [sampler for name, sampler in self._samplers if name == policy]
            known = state.get(policy, ())
            if len(known) == len(mine):
                for sampler, each in zip(mine, known, strict=True):
                    sampler.restore(each)

    def state(self) -> dict[str, list[BucketState]]:
        """Policy → its buckets, for the checkpoint; policies that nobody has reached are left out."""
        state: dict[str, list[BucketState]] = {}
        for policy, limiter in self._limiters:
            state.setdefault(policy, []).extend(limiter.state())
        return {policy: buckets for policy, buckets in state.items() if any(filled >= 0 for _, filled in buckets)}

    def allot(self, index: int, states: Sequence[Mapping[str, Sequence[BucketState]] | None], now: int) -> None:
        """What partitions have said newest (`state` of each): shared limiters of partition `index` take their share.

        One that has another number of buckets for a policy tells nothing of it: it is of other policies.
        """
        before: dict[str, int] = {}
        sizes: Counter[str] = Counter()
        for policy, limiter in self._limiters:
            sizes[policy] += len(limiter.state())
        for policy, limiter in self._limiters:
            first = before.get(policy, 0)
            before[policy] = end = first + len(limiter.state())
            if isinstance(limiter, Shared):
                said = [None if state is None else list(state.get(policy, ())) for state in states]
                told = [one if one is None else one[first:end] if len(one) == sizes[policy] else () for one in said]
                limiter.allot(index, told, now)

    def restore(self, state: Mapping[str, Sequence[BucketState]]) -> None:
        """Continue from a checkpoint. Where it has another number of buckets for a policy, or none, they start full."""
        mine: dict[str, list[Limiter]] = {}
        for policy, limiter in self._limiters:
            mine.setdefault(policy, []).append(limiter)
        for policy, limiters in mine.items():
            known, sizes = list(state.get(policy, ())), [len(limiter.state()) for limiter in limiters]
            if len(known) == sum(sizes):
                for limiter, size in zip(limiters, sizes, strict=True):
                    limiter.restore(known[:size])
                    del known[:size]


NO_LIMITS = Limits((), 1)
