"""Rare traces are kept: the first ones of every shape in an interval, in bounded memory.

A shape is a 64-bit key (processors.sampling.features). Intervals are those of stream time since the epoch, so all
partitions begin anew together, and a replay does where the first reading did.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from processors.sampling.adaptive import KeyState, Sampler
from processors.sampling.probability import ALWAYS, NEVER


@dataclass(frozen=True, slots=True)
class Rarity:
    """`traces` of every shape in each `interval` (ms), of `max_shapes` shapes."""

    policy: str
    traces: int
    interval: int
    max_shapes: int

    def sampler(self, partitions: int) -> Sampler:
        """A partition cannot know what others have kept: each keeps as many."""
        return Shapes(self)


class Shapes:
    """How many of each shape were kept in this interval."""

    def __init__(self, settings: Rarity) -> None:
        self.shared = 0
        self._settings = settings
        self._interval = -1  # its number since the epoch
        self._kept: dict[int, int] = {}

    def threshold(self, now: int, key: int, spans: int) -> int:
        number = now // self._settings.interval
        if number > self._interval:
            self._interval, self._kept = number, {}
        kept = self._kept.get(key, 0)
        if kept == 0 and len(self._kept) >= self._settings.max_shapes:
            self.shared += 1
            return NEVER
        if kept >= self._settings.traces:
            return NEVER
        self._kept[key] = kept + 1
        return ALWAYS

    def take_back(self, key: int) -> None:
        self._kept[key] -= 1
        if not self._kept[key]:
            del self._kept[key]

    def state(self) -> list[KeyState]:
        head = self._interval, self._settings.interval
        return [head, *sorted(self._kept.items())] if self._interval >= 0 else []

    def restore(self, state: Sequence[KeyState]) -> None:
        if state and state[0][1] == self._settings.interval:  # intervals of another length have other numbers
            self._interval, self._kept = state[0][0], dict(state[1:])
