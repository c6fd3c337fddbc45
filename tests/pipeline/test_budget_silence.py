"""Which partitions still want something of a budget where brokers' clocks differ, as those of a test cannot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import SimpleNamespace
from typing import cast

import pytest
from aiokafka import TopicPartition

from pipeline.budget_exchange import SILENT, BudgetExchange
from pipeline.kafka.reader import Reader
from pipeline.kafka.topics import Topics
from schemas.decision import DecisionRecord

SLOW = 20_000  # ms that the clock of partition 1's broker is behind
STARTED = 1_700_000_000_000


class _Logs:
    """In the place of a reader: the newest record of each partition."""

    def __init__(self) -> None:
        self.found: dict[TopicPartition, tuple[int, int, bytes]] = {}

    def write(self, index: int, offset: int, append: int) -> None:
        self.found[TopicPartition("tailrace.decisions", index)] = offset, append, DecisionRecord(1).encode()

    async def newest(
        self, partitions: Sequence[TopicPartition], offsets: int
    ) -> Mapping[TopicPartition, tuple[int, int, bytes]]:
        return {partition: self.found[partition] for partition in partitions if partition in self.found}


async def test_a_broker_whose_clock_is_behind_makes_no_partition_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the others would share what it goes on taking; one that really writes nothing gives its share up."""
    logs, now = _Logs(), 100.0
    monkeypatch.setattr("pipeline.budget_exchange.time", SimpleNamespace(monotonic=lambda: now))
    exchange = BudgetExchange(Topics("tailrace"), 3, {})
    silent = []
    for second in range(40):
        now, append = 100.0 + second, STARTED + 1_000 * second
        logs.write(0, second, append)
        logs.write(1, second, append - SLOW)
        logs.write(2, min(second, 10), append if second <= 10 else STARTED + 10_000)
        told = await exchange.look(cast(Reader, logs))
        assert told is not None
        silent.append([index for index, each in enumerate(told) if each is None])
    assert silent[0] == [1], "at first sight nobody knows better than the brokers"
    assert silent[1 : 10 + int(SILENT) + 1] == [[]] * (10 + int(SILENT))
    assert silent[10 + int(SILENT) + 1 :] == [[2]] * (40 - 10 - int(SILENT) - 1)
