"""The verdicts that a partition remembers: for one late-span horizon of stream time after they were last needed.

Memory: a dropped verdict is one dict entry and one shared object. A verdict lives in a bucket of stream time and
goes with it; a late row that still meets it moves it on, and then it is recorded again, so that what a new owner
loads (everything younger than the horizon) always covers every row between tail and head.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

from schemas.decision import Verdict

BUCKETS_PER_HORIZON = 16  # expiry is late by at most a sixteenth of the horizon


@dataclass(slots=True)
class Verdicts:
    """Trace key → verdict, with expiry by stream time (ms)."""

    horizon: int
    _verdicts: dict[int, Verdict] = field(default_factory=dict)
    _times: dict[int, int] = field(default_factory=dict)
    _buckets: defaultdict[int, list[int]] = field(default_factory=lambda: defaultdict(list))
    _pinned: dict[int, tuple[int, ...]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._verdicts)

    def __contains__(self, key: int) -> bool:
        return key in self._verdicts

    def get(self, key: int) -> Verdict | None:
        """The verdict of a trace, None when undecided or forgotten."""
        return self._verdicts.get(key)

    def put(self, key: int, time: int, verdict: Verdict, heads: tuple[int, ...]) -> None:
        """Remember a verdict from stream time `time` on; the newest one of a trace wins.

        `heads` are the positions before which its rows lie: until the tails are there it is not forgotten.
        """
        self._verdicts[key] = verdict
        self._times[key] = time
        bucket = self._bucket(time)
        self._buckets[bucket].append(key)
        self._pin(bucket, heads)

    def touch(self, key: int, time: int, heads: tuple[int, ...]) -> bool:
        """A row at stream time `time` met its trace's verdict, while the heads stood at `heads`.

        True when the verdict moved on and has to be recorded again.
        """
        known = self._times[key]
        if time <= known + self.horizon // 2:
            self._pin(self._bucket(known), heads)
            return False
        self.put(key, time, self._verdicts[key], heads)
        return True

    def expire(self, now: int, tails: tuple[int, ...]) -> None:
        """Forget what is older than the horizon at the tail's stream time `now`.

        A bucket whose verdicts were made for, or met by, rows that the tails have not passed yet stays.
        """
        limit = self._bucket(now - self.horizon)
        for bucket in sorted(b for b in self._buckets if b < limit):
            if any(tail < head for tail, head in zip(tails, self._pinned.get(bucket, ()), strict=False)):
                continue
            for key in self._buckets.pop(bucket):
                if self._bucket(self._times.get(key, 0)) == bucket:
                    self._verdicts.pop(key, None)
                    self._times.pop(key, None)
            self._pinned.pop(bucket, None)

    def _pin(self, bucket: int, heads: tuple[int, ...]) -> None:
        known = self._pinned.get(bucket)
        self._pinned[bucket] = heads if known is None else tuple(map(max, known, heads))

    def _bucket(self, time: int) -> int:
        return time // max(1, self.horizon // BUCKETS_PER_HORIZON)
