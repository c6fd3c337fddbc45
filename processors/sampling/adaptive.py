"""Rates that follow the traffic, key by key: an exponential moving average (EMA) of what each brings.

What Refinery's EMADynamicSampler and EMAThroughputSampler do (honeycombio/dynsampler-go, emasamplerate.go and
emathroughput.go): after every interval each key gets a part of the goal that grows with the logarithm of its average,
so rare keys are kept nearly all and frequent ones rarely; what a key does not use is for the others. Other than there

- time is stream time and the choice is by the trace's randomness, so a replay decides alike and counts can be adjusted;
- the first interval's counts are the average, not a `weight` of them, so a throughput holds from there on;
- partition i of N, which sees one Nth of every key, reckons with N times what it sees: rates are those of the fleet;
- keys whose averages rest on too few traces share one rate, by the mean of their averages. With many partitions that
  may be most keys: a rate for each would be noise, and to keep what comes again too seldom to be known, all traffic;
- what is beyond `max_keys` has that rate too, it is not let through;
- no key has one trace for certain where that would exceed the goal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import log10
from typing import Protocol

from processors.sampling.probability import ALWAYS, NEVER

REST = 0  # the key of all that have no place of their own, and of what is left of those that were forgotten
GROUNDS = 6  # traces that an average must rest on: each key's rate errs high by about one part in so many
UNITS = 1024  # of an average: it is kept as a whole number
KeyState = tuple[int, int]
"""Two numbers of a checkpoint: most are a key and what is known of it."""


class Sampler(Protocol):
    """What one policy knows of the keys in one partition. `shared` counts traces whose key had no place."""

    shared: int

    def threshold(self, now: int, key: int, spans: int) -> int:
        """A trace is due at `now` (ms of stream time): the 56-bit threshold at which it is kept."""

    def take_back(self, key: int) -> None:
        """The trace that was asked about last, and would have been kept, is not: a rate had no room for it."""

    def state(self) -> list[KeyState]:
        """All of it; `restore` takes it back."""

    def restore(self, state: Sequence[KeyState]) -> None:
        """Go on from there."""


class Keyed(Protocol):
    """A policy that goes by keys."""

    @property
    def policy(self) -> str:
        """The policy of the configuration."""

    def sampler(self, partitions: int) -> Sampler:
        """For one partition of N."""


@dataclass(frozen=True, slots=True)
class Adaptive:
    """`share` of what comes is kept, or with 0 `per_second`; that is in traces if `of_traces`, else in spans.

    Before anything is known the threshold is `initial`. `interval` in ms.
    """

    policy: str
    share: float
    per_second: float
    of_traces: bool
    initial: int
    interval: int
    weight: float
    age_out: float
    burst_multiple: float
    burst_delay: int
    max_keys: int

    def sampler(self, partitions: int) -> Sampler:
        """It knows nothing yet."""
        return Averages(self, partitions)


class Averages:
    """The moving average of each key, what it brought since the last adjustment, and its threshold until the next."""

    def __init__(self, settings: Adaptive, partitions: int) -> None:
        self.shared = 0
        self._settings, self._partitions = settings, partitions
        self._since = -1  # ms
        self._adjusted = 0  # times
        self._averages: dict[int, int] = {}
        self._counts: dict[int, int] = {}
        self._fresh = 0  # keys that have counts and no average
        self._total = 0
        self._squares = 0  # of the sizes of the traces in counts
        self._grain = 0  # size of the trace that an average span is in, a moving average as well
        self._burst = 0.0
        self._thresholds: dict[int, int] = {}

    def threshold(self, now: int, key: int, spans: int) -> int:
        settings = self._settings
        if self._since < 0:
            self._since = now
        elapsed = now - self._since
        if elapsed >= settings.interval:
            if self._total:
                self._adjust()
            self._since += elapsed - elapsed % settings.interval
        key = self._placed(key)
        size = 1 if settings.of_traces else spans
        self._counts[key] = self._counts.get(key, 0) + size
        self._total += size
        self._squares += size * size
        if 0 < self._burst <= self._total and self._adjusted >= settings.burst_delay:
            self._adjust()
            self._since = max(self._since, now)
        if not self._adjusted:
            return settings.initial
        return self._thresholds.get(key, self._thresholds[REST])

    def take_back(self, key: int) -> None:
        """Averages are of what comes, kept or not."""

    def _placed(self, key: int) -> int:
        if key not in self._averages and key not in self._counts:
            if len(self._averages) - (REST in self._averages) + self._fresh >= self._settings.max_keys:
                self.shared += 1
                return REST
            self._fresh += 1
        return key

    def _adjust(self) -> None:
        settings = self._settings
        weight = settings.weight if self._adjusted else 1.0
        averages = {REST: 0}
        for key in sorted({*self._averages, *self._counts}):
            brought, before = self._counts.get(key, 0) * UNITS, self._averages.get(key, 0)
            average = round(weight * brought + (1 - weight) * before)
            if average < round(settings.age_out * UNITS):  # as `average` is: one of just the weight stays
                key = REST
            averages[key] = averages.get(key, 0) + average
        grain = self._squares * UNITS / self._total
        self._grain = round(weight * grain + (1 - weight) * self._grain) if self._grain else round(grain)
        self._averages, self._counts, self._fresh, self._total, self._squares = averages, {}, 0, 0, 0
        self._adjusted += 1
        self._work_out()

    def _work_out(self) -> None:
        """All that follows from the averages."""
        settings = self._settings
        fleet = {key: average * self._partitions / UNITS for key, average in self._averages.items()}
        total = sum(fleet.values())
        self._burst = settings.burst_multiple * total / self._partitions
        goal = settings.share * total if settings.share else settings.per_second * settings.interval / 1000
        least = GROUNDS * self._grain * settings.weight / (2 - settings.weight)  # as many intervals are in an average
        few = [key for key, average in self._averages.items() if average < least or key == REST]
        fleet |= dict.fromkeys(few, sum(fleet[key] for key in few) / len(few))
        kept = parts(fleet, goal)
        self._thresholds = {key: _threshold(kept[key] / size) if size > 0 else ALWAYS for key, size in fleet.items()}

    def state(self) -> list[KeyState]:
        """REST stands twice in both parts: older readers take the second, what was added is the first."""
        if self._since < 0:
            return []
        averages = [(REST, self._grain), *sorted(({REST: 0} | self._averages).items())]
        counts = [(REST, self._squares), *sorted(({REST: 0} | self._counts).items())]
        return [(self._since, self._adjusted), (len(averages), len(counts)), *averages, *counts]

    def restore(self, state: Sequence[KeyState]) -> None:
        if len(state) < 2:
            return
        (self._since, self._adjusted), (number, _) = state[:2]
        averages, counts = state[2 : 2 + number], state[2 + number :]
        self._averages, self._counts = {REST: 0} | dict(averages), dict(counts)
        if [key for key, _ in averages[:2]] == [REST, REST]:  # else an older release wrote it
            self._grain, self._squares = averages[0][1], counts[0][1]
        self._fresh = len([key for key in self._counts if key not in self._averages and key != REST])
        self._total = sum(self._counts.values())
        if self._adjusted:
            self._work_out()


def parts(sizes: Mapping[int, float], goal: float) -> dict[int, float]:
    """How much of `goal` each key gets: by the logarithm of its size, not more than that, and one if all may have one.

    The small ones are served first, and what they leave is for the larger ones, so nothing of the goal is lost.

    >>> parts({1: 10.0, 2: 1000.0}, 100.0)
    {1: 10.0, 2: 90.0}
    """
    weights = {key: log10(max(1.0, size)) for key, size in sizes.items()}
    left, weight, least = goal, sum(weights.values()), min(1.0, goal / max(1, len(sizes)))
    found: dict[int, float] = {}
    for key, size in sorted(sizes.items(), key=lambda item: (item[1], item[0])):
        mine = left * weights[key] / weight if weight > 0 else 0.0
        found[key] = min(size, max(least, mine))
        left, weight = left - found[key], weight - weights[key]
    return found


def _threshold(share: float) -> int:
    return NEVER - max(1, min(NEVER, int(share * NEVER)))
