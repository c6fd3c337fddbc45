"""Items to one destination: queued, sent, sent again for ever, dead-lettered if refused, settled.

One `Delivery` serves all partitions of a sink in a worker. Each lane has its workers; `add` waits while enough is
queued (back-pressure). An item leaves when the destination has accepted it, or has refused it and the dead-letter queue
has it; nothing else settles it. An outage therefore costs time, never data.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any

from pipeline import telemetry
from pipeline.kafka.pace import Turns
from pipeline.sending.settlement import Account, Backoff, Entry, Lane, entries_of, singles, sizes
from pipeline.watching.dead_letter_share import NEVER, DeadLetterShare
from pipeline.watching.seldom import Seldom
from schemas.dead_letter import grouped
from schemas.errors import Retryable, Unavailable
from schemas.reasons import Reason
from sinks.contract import DEAD_LETTERS, Destination, Item, Outcome, Refusal, SourceRecord, always
from sinks.settings import Sink

BATCHES_QUEUED = 2  # batches in memory per request that may be under way: one being sent, one being filled
COMPLAIN_EVERY = 10.0  # seconds between log lines of one kind: about an outage, about refusals
SAID_CHARACTERS = 4096  # of an answer that are logged

Bury = Callable[[Sequence[Item], Refusal], Awaitable[None]]

log = logging.getLogger(__name__)


@dataclass(slots=True)
class _Held:
    """What of a lane is queued or under way."""

    rows: int = 0
    bytes: int = 0

    def add(self, rows: int, size: int) -> None:
        self.rows += rows
        self.bytes += size


class Delivery:
    """Drives one destination. `bury` writes a dead letter and returns when it is stored; Retryable: try again.

    `failed` is resolved with the exception of a bug in the destination, or with TooManyDeadLetters; nothing is
    delivered after it. Encoding takes turns with the transactions that are open in this worker (`turns`). `confirmed`
    says whether what is queued still is this worker's to send, or finds out: then look again.
    """

    def __init__(
        self,
        name: str,
        destination: Destination[Any],
        settings: Sink,
        bury: Bury,
        share: DeadLetterShare | None = None,
        turns: Turns | None = None,
        confirmed: Callable[[], Awaitable[bool]] = always,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name, self._destination, self._settings, self._bury = name, destination, settings, bury
        self._share, self._clock = share or DeadLetterShare(f"sink.{name}", name, NEVER), clock
        self._turns, self._confirmed = turns or Turns(), confirmed
        self._backoff = Backoff(settings.retry, random.random)
        batches = destination.requests_per_lane * BATCHES_QUEUED
        self._most_rows = batches * settings.batch.max_items
        self._most_bytes = batches * settings.batch.max_bytes
        self._under_way = self._burying = 0
        self._held = [_Held() for _ in range(destination.lanes)]
        self._lanes = [Lane(settings.batch) for _ in range(destination.lanes)]
        self._filled = [asyncio.Event() for _ in self._lanes]
        self._room, self._quiet, self._stopping = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._waiting, self._going = 0, asyncio.Event()
        self._going.set()
        self._pausing: set[object] = set()
        self._workers: list[asyncio.Task[None]] = []
        self._drained_by = float("inf")
        self._down_since: float | None = None
        self._seldom, self._complained = Seldom(COMPLAIN_EVERY), False  # of this outage
        self._untold = 0  # refusals since the last line about them
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    async def open(self) -> None:
        """Start the destination, however long that takes, and the workers."""
        failures = 0
        while True:
            try:
                await self._destination.start()
                break
            except Unavailable as error:
                failures += 1
                wait = self._backoff.wait(failures, error.retry_after)
                self._complain("start", str(error), 0, wait)
                await asyncio.sleep(wait)
        self._answered()
        for lane, filled in zip(self._lanes, self._filled, strict=True):
            turn = asyncio.Lock()
            for _ in range(self._destination.requests_per_lane):
                worker = asyncio.create_task(self._work(lane, filled, turn), name=f"sink.{self.name}")
                worker.add_done_callback(self._ended)
                self._workers.append(worker)

    @property
    def busy(self) -> bool:
        """Whether a request or a dead letter is under way, waits to be sent again or to be filled, or must wait.

        A request is filled for `batch.max_age` at most.
        """
        now, under_way = self._clock(), self._under_way or self._burying
        return bool(under_way) or not self._going.is_set() or any(lane.due_in(now) for lane in self._lanes)

    async def add(self, account: Account, record: SourceRecord) -> None:
        """Queue what a record holds, once there is room. Raises ProtocolError for bytes that are not Tailrace's."""
        if account.has(record.offset):
            return
        await self._wait_for_room(range(len(self._lanes)), all)
        async with self._turns.work():
            items = self._destination.encode(record)
        if items is None:
            return
        await self._wait_for_room({item.lane for item in items if not item.defect}, any)
        rows = sum(item.rows for item in items)
        ticket = account.open(record, rows)
        now = self._clock()
        defects = []
        for entry in entries_of(ticket, items, now):
            item = entry.item
            if item.defect:
                defects += singles([entry])
                continue
            self._lanes[item.lane].put(entry)
            self._held[item.lane].add(item.rows, item.size)
        self._wake()
        if defects:
            # Rows that wait for the destination were read as well: a long outage must not make defects look like most.
            waiting = sum(held.rows for held in self._held)
            messages = {entry.item.origin.record for entry in defects}
            self._share.check(now, waiting + len(defects), len(defects), messages)
            refused = [Refusal(n, entry.item.defect, Reason.MALFORMED) for n, entry in enumerate(defects)]
            self._burying += 1
            try:
                if await self._bury_all(defects, refused, len(defects)):
                    self._share.add(now, len(defects), len(defects), messages)
            finally:
                self._burying -= 1

    async def _wait_for_room(self, lanes: Collection[int], full: Callable[[Iterable[bool]], bool]) -> None:
        """While all of these lanes are full, or any; none takes the room of another, which may be stuck."""
        while full(self._is_full(lane) for lane in lanes):
            self._room.clear()
            await self._room.wait()

    def _is_full(self, lane: int) -> bool:
        held = self._held[lane]
        return held.rows >= self._most_rows or held.bytes >= self._most_bytes

    def drop(self, account: Account, topic: str, partition: int) -> None:
        """The partition is no longer ours: what is queued of it is not sent. Requests under way are not recalled."""
        account.closed = True
        for lane in self._lanes:
            self._leave(lane.purge())
        self._quiet.set()
        self._destination.forget(topic, partition)

    async def pause(self, whose: object) -> None:
        """Wait for the answers to what is under way; nothing else is sent until all who asked for it `resume`."""
        self._pausing.add(whose)
        self._going.clear()
        while self._under_way > self._waiting:
            self._quiet.clear()
            await self._quiet.wait()

    def resume(self, whose: object) -> None:
        """Go on after `pause`."""
        self._pausing.discard(whose)
        if not self._pausing:
            self._going.set()
            self._wake()

    def _wake(self) -> None:
        for filled in self._filled:
            filled.set()

    async def drain(self, seconds: float) -> None:
        """`pause` for so long at most, and for ever.

        Every partition of the sink asks for it when the worker stops: the seconds count from the first time.
        """
        self._drained_by = min(self._drained_by, self._clock() + seconds)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, self._drained_by - self._clock())):
                await self.pause(self)
                self._stop()
                while self._under_way:
                    self._quiet.clear()
                    await self._quiet.wait()
        self._stop()

    def _stop(self) -> None:
        self._stopping.set()
        self._going.set()
        self._wake()

    async def close(self) -> None:
        """Drop what is queued and close the destination."""
        self._stopping.set()
        for worker in self._workers:
            worker.cancel()
        if self._workers:
            await asyncio.wait(self._workers)
        await self._destination.close()
        self.failed.cancel()

    # ---- workers -----------------------------------------------------------------------------------------

    async def _work(self, lane: Lane, filled: asyncio.Event, turn: asyncio.Lock) -> None:
        while not self._stopping.is_set():
            async with turn:  # one worker at a time gathers a batch; the others send
                entries = await self._batch(lane, filled)
                self._under_way += bool(entries)
            if not entries:
                continue
            try:
                await self._deliver(entries)
            finally:
                self._under_way -= 1
                self._quiet.set()
                self._leave(entries)

    async def _batch(self, lane: Lane, filled: asyncio.Event) -> list[Entry]:
        """Wait for the next batch; empty when stopping."""
        while not self._stopping.is_set():
            due = lane.due_in(self._clock()) if self._going.is_set() else None
            if due == 0:
                return lane.cut()
            filled.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(due):
                    await filled.wait()
        return []

    async def _deliver(self, entries: list[Entry]) -> None:
        """Send until every row is settled, its partition is gone, or the worker stops."""
        failures, parts = 0, [entries]
        while (parts := _open(parts)) and not self._stopping.is_set():
            if not await self._may_send():
                continue
            entries, before = list(chain.from_iterable(parts)), len(parts)
            outcome = await self._send(entries, [sizes(part)[0] for part in parts])
            rows, _ = sizes(entries)
            some = any(0 < len(rest) < rows for rest in (outcome.retry, outcome.lost))
            if told_apart := bool(some or outcome.refused or outcome.parts):
                entries = singles(entries)
            if not await self._settle(entries, outcome, rows):
                return
            if not outcome.retry:
                self._answered()
                return
            if told_apart:
                again = iter([entries[index] for index in outcome.retry])
                parts = [list(islice(again, size)) for size in outcome.parts or (rows,)]
            if len(outcome.retry) < rows or len(parts) > before:  # it answers
                failures = 0
            if not outcome.reason:
                continue
            lost = set(outcome.lost)
            for index, entry in enumerate(entries):
                entry.item.redelivered |= index in lost
            failures += 1
            wait = self._backoff.wait(failures, outcome.retry_after)
            telemetry.count("tailrace_sink_retries_total", sink=self.name, reason=outcome.reason)
            self._complain(outcome.reason, outcome.detail, len(outcome.retry), wait)
            with self._waits():
                await self._stops_within(wait)
                await self._going.wait()

    @contextlib.contextmanager
    def _waits(self) -> Iterator[None]:
        """A batch waits while the block runs: nobody waits for its answer."""
        self._waiting += 1
        self._quiet.set()
        try:
            yield
        finally:
            self._waiting -= 1

    async def _may_send(self) -> bool:
        """Whether a batch is still ours to send; if that had to be found out, look again."""
        with self._waits():
            if self._going.is_set() and await self._confirmed():
                return True
            await self._going.wait()
            return False

    async def _settle(self, entries: Sequence[Entry], outcome: Outcome, rows: int) -> bool:
        """Do as the outcome of so many rows says; False if the worker stops before that.

        Each row has an entry of its own, unless all of them are accepted or all are sent again.
        """
        again = set(outcome.retry)
        settled = rows - len(again)
        refused = settled - outcome.accepted - outcome.already_delivered
        messages = {entries[refusal.index].item.origin.record for refusal in outcome.refused}
        blamed = {refusal.index for refusal in outcome.refused}
        for index, entry in enumerate(entries):  # before anything can go wrong with the others
            if settled and index not in again and index not in blamed:
                entry.ticket.settle(entry.row, entry.item.rows)
        self._count_items("accepted", outcome.accepted)
        self._count_items("already_delivered", outcome.already_delivered)
        self._tell(outcome.refused)
        self._share.check(self._clock(), settled, refused, messages)
        if not await self._bury_all(entries, outcome.refused, refused):
            return False
        self._share.add(self._clock(), settled, refused, messages)
        return True

    async def _send(self, entries: Sequence[Entry], parts: Sequence[int]) -> Outcome:
        """One request, or what is left of one that was halved: so many rows in each of its parts."""
        async with self._turns.work():
            request = self._destination.request([entry.item for entry in entries])
        halved = False

        def rejected(said: str, refused: int) -> None:
            nonlocal halved
            halved = True
            telemetry.count("tailrace_sink_requests_total", sink=self.name, outcome="refused")
            self._warn(  # that it goes on, for it may take minutes until there is an outcome
                "sink refuses a request as a whole, it is halved until the items to blame stand alone",
                items=sizes(entries)[0],
                refused=refused,
                answer=said[:SAID_CHARACTERS],
            )

        accounts = {entry.ticket.account for entry in entries}

        async def wanted() -> bool:
            if not self._going.is_set() or self._stopping.is_set() or any(account.closed for account in accounts):
                return False
            with self._waits():
                return await self._confirmed()

        request.parts, request.rejected, request.wanted = parts, rejected, wanted
        began = self._clock()
        try:
            outcome = await self._destination.send(request)
        except Unavailable as error:
            outcome = Outcome.unanswered(sizes(entries)[0], error)
        telemetry.observe("tailrace_sink_request_seconds", self._clock() - began, sink=self.name)
        result = "retried" if outcome.reason else "refused" if outcome.refused else "accepted"
        left = outcome.retry and not outcome.reason
        if not left and not (halved and result == "refused"):  # counted as it came
            telemetry.count("tailrace_sink_requests_total", sink=self.name, outcome=result)
        return outcome

    async def _bury_all(self, entries: Sequence[Entry], refused: Sequence[Refusal], rows: int) -> bool:
        """Write dead letters and settle what is in them; False if the worker stops before all of them are stored.

        So many of their rows count as refused: fewer than there are where the destination did not say which.
        """
        failures = 0
        for several, refusal in _letters(entries, refused):
            account = several[0].ticket.account
            while not account.closed:
                try:
                    await self._bury([entry.item for entry in several], refusal)
                    telemetry.count("tailrace_dead_letters_total", stage=f"sink.{self.name}", reason=refusal.reason)
                    counted = min(rows, len(several))
                    rows -= counted
                    self._count_items("refused", counted)
                    for entry in several if not account.closed else ():
                        entry.ticket.settle(entry.row)
                    break
                except Retryable as error:
                    failures += 1
                    wait = self._backoff.wait(failures)
                    telemetry.count("tailrace_sink_retries_total", sink=self.name, reason=DEAD_LETTERS)
                    self._complain(DEAD_LETTERS, str(error), len(refused), wait)
                    if await self._stops_within(wait):
                        return False
        return True

    async def _stops_within(self, seconds: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        return self._stopping.is_set()

    def _leave(self, entries: Sequence[Entry]) -> None:
        """Entries of one lane."""
        if entries:
            rows, size = sizes(entries)
            self._held[entries[0].item.lane].add(-rows, -size)
        self._room.set()

    def _ended(self, worker: asyncio.Task[None]) -> None:
        if not worker.cancelled() and (error := worker.exception()) is not None and not self.failed.done():
            self.failed.set_exception(error)

    # ---- what operators see ------------------------------------------------------------------------------

    def _count_items(self, outcome: str, number: int) -> None:
        if number:
            telemetry.count("tailrace_sink_items_total", number, sink=self.name, outcome=outcome)

    def _warn(self, text: str, **fields: object) -> bool:
        """Log a line of this kind, unless one was logged lately."""
        due = self._seldom.due(self._clock(), text)
        if due:
            log.warning(text, extra={"sink": self.name, "endpoint": ", ".join(self._settings.servers), **fields})
        return due

    def _complain(self, reason: str, error: str, items: int, wait: float) -> None:
        now = self._clock()
        if self._down_since is None:
            self._down_since = now
        self._complained |= self._warn(
            "sink does not accept, trying again",
            reason=reason,
            error=error,
            items=items,
            retry_in=round(wait, 3),
            down_for=round(now - self._down_since, 3),
        )

    def _tell(self, refused: Sequence[Refusal]) -> None:
        """Log what the destination said, as it said it, and how many refusals nothing was logged of since then."""
        if refused:
            told = self._warn(
                "sink refuses items, they become dead letters",
                items=len(refused),
                answer=(refused[0].said or refused[0].detail)[:SAID_CHARACTERS],
                not_logged=self._untold,
            )
            self._untold = 0 if told else self._untold + len(refused)

    def _answered(self) -> None:
        if self._down_since is not None and self._complained:
            seconds = round(self._clock() - self._down_since, 3)
            log.info("sink accepts again", extra={"sink": self.name, "down_for": seconds})
        self._down_since, self._complained = None, False


def _open(parts: Iterable[list[Entry]]) -> list[list[Entry]]:
    """What of them is of partitions that are still ours."""
    found = [[entry for entry in part if not entry.ticket.account.closed] for part in parts]
    return [part for part in found if part]


def _letters(entries: Sequence[Entry], refused: Sequence[Refusal]) -> Iterator[tuple[list[Entry], Refusal]]:
    """Each alone; of one raw message and reason many together, for each takes its resource along."""
    groups: dict[object, list[Refusal]] = {}
    for refusal in refused:
        entry = entries[refusal.index]
        groups.setdefault((entry.item.origin.record, refusal.reason, id(entry.ticket.account)), []).append(refusal)
    for found in groups.values():
        for each in grouped(found):
            first = each[0]
            told = first if len(each) == 1 else replace(first, detail=f"{len(each)} rows; the first: {first.detail}")
            yield [entries[refusal.index] for refusal in each], told
