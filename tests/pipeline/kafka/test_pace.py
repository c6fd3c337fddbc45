"""Transactions on a machine that is slow: who has the loop, and how much is tried at once."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path

import pytest

from pipeline import sample, worker
from pipeline.kafka import commit, fetching
from pipeline.kafka.pace import LEAD_SHARE, LEAST_BYTES, TRANSACTION_TIMEOUT_MS, BurstSize, Lead, Turns
from pipeline.worker import running
from processors.sampling.held import Value
from processors.sampling.window import Window
from tests.pipeline.fed import Fed
from tests.services import Kafka

PIECE = 0.5  # seconds that a record keeps the loop of a slow worker busy
TIMEOUT_MS = 1_500  # of its transactions, which need more turns of the loop than that has pieces
RECORDS = 6  # in each topic: the heads alone have work for more than TIMEOUT_MS


class Clock:
    """Stands until it is moved."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


async def test_work_goes_on_beside_a_transaction_for_a_while_then_waits_for_its_end() -> None:
    clock, ended = Clock(), asyncio.Event()
    turns, done = Turns(beside=2.0, clock=clock), 0

    async def commits() -> None:
        with turns.transaction():
            await ended.wait()

    async def works() -> None:
        nonlocal done
        for _ in range(9):
            async with turns.work():
                clock.now += 0.5
                done += 1

    first = asyncio.create_task(commits())
    await asyncio.sleep(0)
    working = asyncio.create_task(works())
    await asyncio.wait([working], timeout=0.05)
    assert done == 4, "2 s of it"
    second = asyncio.create_task(commits())
    await asyncio.sleep(0)
    ended.set()
    await asyncio.wait_for(asyncio.gather(first, second, working), 5)
    assert done == 9


async def test_an_open_transaction_counts_from_its_own_beginning() -> None:
    """However many are open one after the other, work gets on beside each."""
    clock = Clock()
    turns = Turns(beside=1.0, clock=clock)
    before = turns.transaction()
    before.__enter__()
    for _ in range(10):
        async with turns.work():
            clock.now += 1.0
        after = turns.transaction()
        after.__enter__()
        before.__exit__(None, None, None)
        before = after


async def test_work_is_one_piece_at_a_time_and_sockets_come_between_long_ones() -> None:
    clock, seen = Clock(), []
    turns = Turns(clock=clock)

    async def works(name: str, seconds: float) -> None:
        async with turns.work() as is_long:
            seen.append((name, is_long()))
            clock.now += seconds
            seen.append((name, is_long()))

    def socket() -> None:
        seen.append(("socket", False))

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(works("a", 1.0))
        tasks.create_task(works("b", 0.0))
        asyncio.get_running_loop().call_soon(socket)
    assert seen == [("a", False), ("a", True), ("socket", False), ("b", False), ("b", False)]


async def test_work_that_is_given_up_leaves_its_turn_to_others() -> None:
    turns = Turns(beside=0.0)
    with turns.transaction():
        waiting = asyncio.create_task(_enter(turns))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
    with pytest.raises(ValueError, match="a bug"):
        await _enter(turns, ValueError("a bug"))
    await asyncio.wait_for(_enter(turns), 5)


async def _enter(turns: Turns, error: Exception | None = None) -> None:
    async with turns.work():
        if error is not None:
            raise error


def test_half_is_tried_after_a_failure_and_more_again_bit_by_bit() -> None:
    size = BurstSize(8 << 20)
    size.failed()
    size.took(0.6 * TRANSACTION_TIMEOUT_MS / 1000, full=True)
    assert size.bytes == 2 << 20, "one that took so long counts like one that failed"
    size.took(0.3 * TRANSACTION_TIMEOUT_MS / 1000, full=True)
    size.took(0.1, full=False)
    assert size.bytes == 2 << 20, "slow, or not used up: says nothing for more"
    tried = []
    while size.bytes < 8 << 20:
        size.took(0.1, full=True)
        tried.append(size.bytes)
    assert 5 < len(tried) < 9
    for _ in range(40):
        size.failed()
    assert size.bytes == LEAST_BYTES
    small = BurstSize(100)
    small.failed()
    assert small.bytes == 100, "kafka.commit_bytes may be less than that"


def test_a_transaction_begins_earlier_by_what_the_slowest_took() -> None:
    lead = Lead(1.0)
    assert lead.seconds == 0, "nothing is known"
    for seconds in (0.02, 0.1, 0.02):
        lead.took(seconds)
    assert 0.08 < lead.seconds <= 0.1
    for _ in range(100):
        lead.took(0.02)
    assert lead.seconds == 0.02, "what was slow once is forgotten"
    lead.took(0.9)
    assert lead.seconds == LEAD_SHARE, "of the interval"
    assert lead.has_room, "one was slow, which is not usual"


def test_transactions_that_fill_their_interval_do_not_come_sooner() -> None:
    lead = Lead(0.025)
    for _ in range(50):
        lead.took(0.012)
    assert lead.seconds == 0
    assert not lead.has_room


class Slow(Window):
    """Decodes on a machine that is slow."""

    def head(self, topic: str, offset: int, append: int, value: Value) -> None:
        time.sleep(PIECE)  # the loop stands, as it does while it decodes
        super().head(topic, offset, append, value)


async def test_a_slow_worker_with_a_backlog_gets_on(
    kafka: Kafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its transactions used to be open while its heads read on, for longer than they may be, and so on for ever."""
    monkeypatch.setattr(commit, "TRANSACTION_TIMEOUT_MS", TIMEOUT_MS)
    monkeypatch.setattr(worker, "Turns", lambda: Turns(beside=TIMEOUT_MS / 1000 / 5))
    monkeypatch.setattr(fetching, "PARTITION_FETCH_BYTES", 1)  # a record each
    monkeypatch.setattr(sample, "Window", Slow)
    fed = Fed(kafka, tmp_path)
    await fed.create(raw=1)
    names = [f"{number:02}/1!" for number in range(RECORDS - 1)]
    async with fed.producer() as producer:
        for number, name in enumerate(names):
            await fed.feed(producer, 100 * number, name)
        await fed.feed(producer, 3_000)
    async with running(fed.config, ["sample"]):
        assert await fed.kept(*names) == Counter(names)
