"""The clock of `processors/stream_time.py` as it is defined: every question goes through all raw partitions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from processors.stream_time import LEFT_OUT, STEPS_PER_STALL, UNLISTED, RawPartition


@dataclass
class PlainClock:
    """What a `StreamClock` has to answer."""

    stall_limits: Mapping[str, int]
    default_stall_limit: int
    feeds: tuple[str, ...]
    marks: dict[RawPartition, tuple[int, int]] = field(default_factory=dict)
    raw_topics: dict[str, int] = field(default_factory=dict)
    changed: set[RawPartition] = field(default_factory=set)
    appended: dict[str, int] = field(default_factory=dict)
    activity: dict[str, int] = field(default_factory=dict)
    heard: dict[RawPartition, tuple[int, ...]] = field(default_factory=dict)
    left_out: set[RawPartition] = field(default_factory=set)
    lists: list[tuple[tuple[int, ...], Mapping[str, int]]] = field(default_factory=list)
    reached: int | None = None

    def restore(self, marks: Mapping[RawPartition, tuple[int, int]], raw_topics: Mapping[str, int]) -> None:
        self.marks = {raw: mark for raw, mark in marks.items() if mark[0] >= 0}
        self._list(raw_topics)
        for raw, (_, append) in marks.items():
            self.heard.setdefault(raw, self._active())
            if append == LEFT_OUT:
                self.left_out.add(raw)

    def saved(self, raw: RawPartition) -> tuple[int, int]:
        mark, append = self.marks.get(raw, (-1, LEFT_OUT))
        return mark, LEFT_OUT if self._stalled(raw) else append

    def observe(self, feed: str, raw: RawPartition, mark: int, append: int, raw_topics: Mapping[str, int]) -> None:
        self._elapse(feed, append)
        self._list(raw_topics)
        if mark >= 0:
            known = self.marks.get(raw)
            self.marks[raw] = (max(mark, known[0]) if known else mark, append)
            self.heard[raw] = self._active()
            self.left_out.discard(raw)
            self.changed.add(raw)

    def ended(self, feed: str, append: int) -> None:
        if append > self.appended.get(feed, -1):
            self._elapse(feed, append)

    def now(self) -> int | None:
        live = [raw for raw in self.heard if not self._stalled(raw)]
        if live and all(raw in self.marks for raw in live):
            self.reached = max(min(self.marks[raw][0] for raw in live), self.reached or 0)
        return self.reached

    def stalled(self) -> list[RawPartition]:
        found = [raw for raw in self.heard if self._stalled(raw)]
        removed = {raw for raw in found if not self._is_listed(raw)}
        for raw in removed:
            del self.heard[raw]
            self.marks.pop(raw, None)
        self.changed -= removed
        self.left_out -= removed
        for topic, partition in removed:
            self.raw_topics[topic] = min(self.raw_topics.get(topic, 0), partition)
        gone = {topic for topic, _ in removed if not self.raw_topics[topic]}
        self.raw_topics = {topic: known for topic, known in self.raw_topics.items() if topic not in gone}
        return [raw for raw in found if raw not in removed]

    def _is_listed(self, raw: RawPartition) -> bool:
        latest = [at for at, listed in self.lists if listed.get(raw[0]) == 0 or listed.get(raw[0], 0) > raw[1]]
        return any(self._since(at) <= self._limit(raw) // UNLISTED for at in latest)

    def _elapse(self, feed: str, append: int) -> None:
        step = min([self.default_stall_limit, *self.stall_limits.values()]) // STEPS_PER_STALL
        known = self.appended.setdefault(feed, append)
        if append > known:
            self.activity[feed] = self.activity.get(feed, 0) + min(append - known, step)
        if append > known or append < known - step:
            self.appended[feed] = append

    def _active(self) -> tuple[int, ...]:
        return tuple(self.activity.get(feed, 0) for feed in self.feeds)

    def _list(self, raw_topics: Mapping[str, int]) -> None:
        self.lists.append((self._active(), raw_topics))
        for topic, count in raw_topics.items():
            self.raw_topics[topic] = max(count, self.raw_topics.get(topic, 0))
            for partition in range(count):
                self.heard.setdefault((topic, partition), self._active())

    def _stalled(self, raw: RawPartition) -> bool:
        return raw in self.left_out or self._since(self.heard[raw]) > self._limit(raw)

    def _since(self, then: tuple[int, ...]) -> int:
        return min(map(int.__sub__, self._active(), then))

    def _limit(self, raw: RawPartition) -> int:
        return self.stall_limits.get(raw[0], self.default_stall_limit)
