"""When a role stops rather than send everything that it reads to the dead-letter queue (`limits.dead_letters`).

After a bad deploy (a wrong `encoding`, a producer that writes something else, a mapping that refuses every document)
nearly all records are dead letters. They would not be lost, but a queue with everything in it helps nobody, and
acknowledged records are not read again. So the share is looked at before they are acknowledged.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Hashable

from pipeline import telemetry
from pipeline.config import DeadLetters
from schemas.errors import TooManyDeadLetters

NEVER = DeadLetters(max_ratio=1)


class DeadLetterShare:
    """Of one input of a role in this worker, over the last `limit.window` seconds. Times are monotonic seconds."""

    def __init__(self, role: str, source: str, limit: DeadLetters) -> None:
        self._role, self._source, self._limit = role, source, limit
        self._counts: deque[tuple[float, int, int, Collection[Hashable]]] = deque()
        self._read = self._lost = 0

    def check(self, now: float, read: int, lost: int, messages: Collection[Hashable] | None = None) -> None:
        """Raise TooManyDeadLetters if these `read` records, `lost` of them, would be too many with those before.

        `messages` are the raw ones that the lost are of, if one may hold many of them: one alone never is too much.
        """
        self._forget(now)
        if not read:
            return
        read, lost = self._read + read, self._lost + lost
        limit = self._limit
        if read >= limit.min_records and lost > limit.max_ratio * read and not self._is_one(messages):
            telemetry.gauge("tailrace_dead_letter_ratio", lost / read, role=self._role, input=self._source)
            raise TooManyDeadLetters(
                f"{self._source}: {lost} of the last {read} records would become dead letters "
                f"(limits.dead_letters.max_ratio: {limit.max_ratio:g}, window: {limit.window:g}s); they were left "
                f"unread. `tailrace dlq list` shows those before and why: {self._advice} and start {self._role} again; "
                "with limits.dead_letters.max_ratio: 1 all of them go to the queue"
            )

    def add(self, now: float, read: int, lost: int, messages: Collection[Hashable] = ()) -> None:
        """These have been acknowledged."""
        self._forget(now)
        if not read:
            return
        self._counts.append((now, read, lost, messages))
        self._read += read
        self._lost += lost
        telemetry.gauge("tailrace_dead_letter_ratio", self._lost / self._read, role=self._role, input=self._source)

    @property
    def _advice(self) -> str:
        if self._role.startswith("sink."):
            return f"mend the destination or sinks.{self._source}"
        return "mend the producer or `inputs[].encoding`"

    def _forget(self, now: float) -> None:
        while self._counts and now - self._counts[0][0] > self._limit.window:
            _, read, lost, _ = self._counts.popleft()
            self._read -= read
            self._lost -= lost

    def _is_one(self, messages: Collection[Hashable] | None) -> bool:
        if messages is None:
            return False
        return len({message for _, _, _, before in self._counts for message in before} | {*messages}) <= 1
