"""Bringing dropped traces back: what the owner of a partition does beside its work, one trace at a time.

The log of decisions says where the trace begins. From there to the tail its records are read once more; the last of
them, and the hand-over to the window, while no burst can move the tail. What came of it is told when the transaction
with the new verdict is durable: an owner that dies before has restored nothing, and may be asked again.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import inf
from typing import Any

from pipeline import telemetry
from pipeline.config import Config
from pipeline.operating.decision_log import DecisionLog, Place
from pipeline.operating.history import History
from processors.sampling.restore import BY_HAND, LateError, Outcome, Restoration
from processors.sampling.window import Window
from schemas.envelope import Envelope
from schemas.errors import Unavailable
from schemas.raw_batch import RawBatch
from schemas.reasons import Reason

log = logging.getLogger(__name__)

BURST_SECONDS = 10  # of sampling.late_evidence.traces_per_second


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a request: rows that went out with it, whether some may be missing, and the reason on record."""

    outcome: Outcome
    partition: int
    spans: int = 0
    logs: int = 0
    partial: bool = False
    why: str = ""

    def as_plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)


class Restores:
    """The restores of one partition under one epoch. `turn` is held while the tail may move."""

    def __init__(self, config: Config, index: int, window: Window, turn: asyncio.Lock) -> None:
        self._config, self._index, self._window, self._turn = config, index, window, turn
        self._under_way: dict[int, asyncio.Task[Answer]] = {}
        self._reading = asyncio.Lock()
        self._closed = False
        self._durable: asyncio.Future[None] | None = None  # of what the next burst takes along
        self._allowed, self._allowed_at = inf, 0.0  # restores that late evidence may set off now, since when

    async def ask(self, key: int, why: str, most: float = inf) -> Answer:
        """Restore a trace, unless more than `most` bytes of the log would have to be read for it.

        Asked twice, it is done once. Raises Unavailable when the partition is lost meanwhile.
        """
        if self._closed:  # by then it was looked up: nobody would commit it
            raise Unavailable(f"partition {self._index} was let go of meanwhile; ask again")
        task = self._under_way.get(key) or self._begin(key, why, BY_HAND, most)
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            if task.cancelled():
                raise Unavailable(f"partition {self._index} was let go of meanwhile; ask again") from None
            raise

    def waits(self, key: int) -> bool:
        """Whether a trace has no verdict yet: what a partition without a clock says of any."""
        return self._window.fate(key) is Outcome.UNDECIDED

    def look(self, late: Mapping[int, LateError], now: float) -> None:
        """Restore the traces that late errors speak for, as far as the limits allow; `now` is monotonic, in seconds."""
        settings = self._config.sampling.late_evidence
        burst = max(1.0, BURST_SECONDS * settings.traces_per_second)
        self._allowed = min(burst, self._allowed + (now - self._allowed_at) * settings.traces_per_second)
        self._allowed_at = now
        for key, (trigger, why) in late.items():
            if key in self._under_way:
                continue
            if self._allowed < 1 or len(self._under_way) >= burst:  # they are read one after the other
                telemetry.count("tailrace_restores_total", trigger=trigger, outcome=Outcome.LIMITED)
                continue
            self._allowed -= 1
            self._begin(key, why, trigger, settings.max_read_bytes)

    def committed(self) -> None:
        """The burst that a restore waits for is durable."""
        if self._durable is not None and not self._durable.done():
            self._durable.set_result(None)

    async def close(self) -> None:
        """Give up what is under way."""
        self._closed = True
        tasks = list(self._under_way.values())
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)

    def _begin(self, key: int, why: str, trigger: str, most: float = inf) -> asyncio.Task[Answer]:
        def ended(task: asyncio.Task[Answer]) -> None:
            self._under_way.pop(key, None)
            if task.cancelled():
                return
            outcome = Outcome.FAILED if task.exception() else task.result().outcome
            telemetry.count("tailrace_restores_total", trigger=trigger, outcome=outcome)
            if outcome is Outcome.FAILED:
                log.warning("a trace was not restored", extra={"trace": f"{key:016x}", "error": repr(task.exception())})

        task = self._under_way[key] = asyncio.create_task(self._restore(key, why, most), name=f"restore {key:016x}")
        task.add_done_callback(ended)
        return task

    async def _restore(self, key: int, why: str, most: float) -> Answer:
        async with self._reading:
            return await self._answer(key, why, most)

    async def _answer(self, key: int, why: str, most: float) -> Answer:
        if self.waits(key):
            return Answer(Outcome.UNDECIDED, self._index)
        place = await self._place(key)
        if place.decision is None:
            return Answer(Outcome.UNKNOWN, self._index)
        if place.restored is not None or place.decision.verdict.kept:
            told = place.restored.why if place.restored else f"kept by {place.decision.verdict.policy}"
            return Answer(Outcome.KEPT, self._index, why=told)
        history = History(self._config, self._index, self._window.raw_partitions)
        try:
            first, tails = await history.beginnings(), place.before.tails
            starts = {feed: max(offset, tails.get(feed, 0)) for feed, offset in first.items()}
            partial = any(starts[feed] > tails.get(feed, 0) for feed in starts)
            found = Restoration(key, why, starts, place.heads, self._config.kafka.partitions, partial)
            await self._read(history, found, most)
            async with self._turn:
                await self._read(history, found, most)  # what the tail has passed meanwhile
                if found.read > most:
                    return Answer(Outcome.TOO_FAR, self._index)
                outcome = self._window.restore(found)
                if outcome is Outcome.RESTORED:
                    self._durable = asyncio.get_running_loop().create_future()
        finally:
            await history.close()
        if outcome is not Outcome.RESTORED:
            return Answer(outcome, self._index, partial=found.partial)
        assert self._durable is not None
        await self._durable
        spans, *logs = (found.count(topic) for topic in history.topics)
        return Answer(outcome, self._index, spans, sum(logs), found.partial, why)

    async def _place(self, key: int) -> Place:
        decisions = DecisionLog(self._config, self._index)
        try:
            return await decisions.find(key, int(self._config.sampling.late_horizon * 1000))
        finally:
            await decisions.close()

    async def _read(self, history: History, found: Restoration, most: float) -> None:
        """Up to the tails, until more than `most` bytes have been read, or more was found than can be restored."""
        while found.read <= most and not found.too_large and (behind := found.behind(self._window.tails())):
            for feed, (position, tail) in behind.items():
                records, found.positions[feed] = await history.again(feed, position, tail)
                for _, _, value in records:
                    found.partial |= isinstance(value, RawBatch) and any(
                        letter.reason == Reason.BATCH_CORRUPT for letter in value.dead_letters
                    )
                    found.read += value.size if isinstance(value, RawBatch) else len(value)
                    found.add(feed, value.rows if isinstance(value, RawBatch) else Envelope.decode(value))
