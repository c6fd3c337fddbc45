"""A budget of the fleet: a rate whose parts follow what partitions want, not one Nth for each.

Every partition measures its demand by its own stream time and writes it with its share into its checkpoint
(`limiters`), so the log of decisions tells everybody. Whoever owns a partition reads the newest checkpoint of all and
works out its share anew: in proportion to demand, so a trace passes with the same chance wherever its id put it, and a
little for those that want nothing. All compute the same from the same, so shares add up to the whole but for what is
newer than the last look; and as the share that held is in the checkpoint, a new owner goes on with it. How far others
have come says nothing about what they want: in a catch-up what they have written is old, by stream time, at each look.

Arithmetic is in whole units, like that of processors.sampling.limits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from processors.sampling.limits import LONGEST_MS, ROOM, UNITS, Bucket, BucketState, Limiter

EQUAL = 1000  # the share of a partition that has one Nth of the budget
WINDOW_MS = 1000  # over which demand is measured, at least
MEMORY, LONGEST_MEMORY = 2, 32  # windows in a demand: as many as have TRACES traces where it goes on
TRACES = 8  # of fewer chance says more than demand does
SPARE = 100  # one part in so many of an equal share is for who wants nothing
NEVER = -1  # `since` of who has not been asked since it was last found to want nothing
NOTHING, UNTOLD = (0, 0, NEVER), (EQUAL, 0, 0)  # share, demand, since


class Budget(NamedTuple):
    """What a policy allows over all partitions, in spans or bytes: `burst` is the capacity, and the largest trace."""

    policy: str
    per_second: int
    burst: int

    def limiter(self, partitions: int) -> Limiter:
        """It begins full, with an equal share."""
        return Budgeted(self, partitions)


class Budgeted:
    """One partition's share."""

    def __init__(self, budget: Budget, partitions: int) -> None:
        self._budget, self._partitions = budget, partitions
        self._token = UNITS * partitions * EQUAL  # units of a span or byte
        self._bucket = Bucket(0, 0, 0)
        self._share = EQUAL
        self._demand = 0  # spans or bytes a second
        self._wanted, self._since = 0, NEVER
        self._size = 0  # of the last trace
        self._apply()
        self._bucket.tokens = self._bucket.capacity

    def _apply(self) -> None:
        bucket, budget = self._bucket, self._budget
        bucket.capacity, bucket.per_ms = budget.burst * UNITS * self._share, budget.per_second * self._share
        self._room = min(budget.burst * self._token, LONGEST_MS * budget.per_second * max(EQUAL, self._share))
        bucket.tokens = min(bucket.tokens, max(bucket.capacity, self._room))

    def take(self, now: int, part: int, size: int) -> bool:
        if self._since < 0:
            self._since = now
        self._wanted += size
        self._size = min(size, self._budget.burst)
        self._bucket.fill(now, room=min(ROOM * size * self._token, self._room))
        return size <= self._budget.burst and self._bucket.spend(size * self._token)

    def _measure(self, now: int) -> None:
        elapsed = now - self._since
        if self._since >= 0 and elapsed >= WINDOW_MS:
            rate = -(-self._wanted * 1000 // elapsed)
            memory = max(MEMORY, min(TRACES * self._size // max(1, self._demand), LONGEST_MEMORY))
            self._demand = ((memory - 1) * self._demand + rate) // memory if self._demand else rate
            self._wanted, self._since = 0, now if self._demand else NEVER

    def allot(self, index: int, states: Sequence[Sequence[BucketState] | None], now: int) -> None:
        """Take the share of partition `index`, by the newest `state` of each; empty: told nothing yet; None: is silent.

        Who has told nothing, or has been asked and does not know yet how often, keeps what it has, and the others share
        the rest; nobody gets more while that is as much as an equal share. To take not knowing for wanting nothing
        would give every partition the whole at the beginning, when none knows of another.
        """
        self._measure(now)
        told = [NOTHING if state is None else (*state[1], state[2][1]) if state else UNTOLD for state in states]
        told[index] = self._share, self._demand, self._since
        held = [share if demand == 0 and since >= 0 else 0 for share, demand, since in told]
        if not held[index]:
            demands = [demand for _, demand, _ in told]
            share = shares(demands, EQUAL * len(told) - sum(held))[index]
            self._share = min(share, self._share) if max(held) >= EQUAL else share
            self._apply()

    def state(self) -> list[BucketState]:
        """Pairs: (tokens, filled), (share, demand), (wanted, since), (size of the last trace, -1)."""
        return [self._bucket.state(), (self._share, self._demand), (self._wanted, self._since), (self._size, NEVER)]

    def restore(self, state: Sequence[BucketState]) -> None:
        (_, _), (self._share, self._demand), (self._wanted, self._since), (self._size, _) = state
        self._apply()
        self._bucket.restore(state[0], self._budget.burst * self._token, self._room)


def shares(demands: Sequence[int], whole: int) -> list[int]:
    """The share of each partition, EQUAL for one Nth of the budget; together not more than `whole`.

    >>> shares([900, 100, 0, 0], 4 * EQUAL)
    [3571, 404, 10, 10]
    """
    spare = max(1, sum(demands) // (SPARE * len(demands)))
    weights = [demand + spare for demand in demands]
    return [max(1, whole * weight // sum(weights)) for weight in weights]
