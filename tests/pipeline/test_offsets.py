"""Committing the offsets of a sink: all of its partitions together, however many of them ask for it."""

from __future__ import annotations

import asyncio
import logging
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import RebalanceInProgressError

from pipeline.offsets import COMMIT_EVERY, Offsets
from pipeline.settlement import Account


async def test_a_commit_that_fails_is_tried_once_for_all_partitions_and_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    partitions = [TopicPartition("kept", number) for number in range(8)]
    tried: list[int] = []
    thrice = asyncio.Event()

    async def commit(offsets: dict[TopicPartition, object]) -> None:
        tried.append(len(offsets))
        if len(tried) == 3:
            thrice.set()
        raise RebalanceInProgressError

    group = SimpleNamespace(
        role="sink.x", commit=commit, consumer=SimpleNamespace(assignment=lambda: frozenset(partitions))
    )
    offsets = Offsets(cast(Any, group))
    for partition in partitions:
        offsets.begin(partition, Account(1), 0, "")
    began = time.monotonic()
    with caplog.at_level(logging.WARNING, "pipeline.offsets"):
        tasks = [asyncio.create_task(offsets.commit_regularly()) for _ in partitions]
        async with asyncio.timeout(30):
            await thrice.wait()
        passed = time.monotonic() - began
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    assert set(tried) == {len(partitions)}
    assert len(tried) <= 1 + passed / COMMIT_EVERY
    assert len(caplog.records) == len(tried)
