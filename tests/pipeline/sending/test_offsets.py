"""Committing the offsets of a sink: all of its partitions together."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Collection
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import OffsetMetadataTooLargeError, RebalanceInProgressError
from aiokafka.structs import OffsetAndMetadata

from pipeline.sending.offsets import COMMIT_EVERY, Offsets
from pipeline.sending.settled import Ranges, Settled
from pipeline.sending.settlement import Account


def a_group(partitions: Collection[TopicPartition], commit: Callable[..., Awaitable[None]]) -> Any:
    """One that has these partitions."""
    consumer = SimpleNamespace(assignment=lambda: frozenset(partitions))
    return SimpleNamespace(role="sink.x", commit=commit, consumer=consumer, kafka=SimpleNamespace(prefix="x"))


async def test_a_commit_that_fails_is_tried_again_for_all_partitions_together_and_told_each_time(
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

    group = a_group(partitions, commit)
    offsets = Offsets(group)
    for partition in partitions:
        offsets.begin(partition, Account(1), 0, "")
    began = time.monotonic()
    with caplog.at_level(logging.WARNING, "pipeline.sending.offsets"):
        committing = asyncio.create_task(offsets.commit_regularly())
        async with asyncio.timeout(30):
            await thrice.wait()
        passed = time.monotonic() - began
        committing.cancel()
        await asyncio.wait([committing])
    assert set(tried) == {len(partitions)}
    assert len(tried) <= 1 + passed / COMMIT_EVERY
    assert len(caplog.records) == len(tried)


async def test_a_partition_that_was_just_let_go_of_is_not_committed() -> None:
    """It may be somebody else's, who is further on."""
    partitions = [TopicPartition("kept", number) for number in range(2)]
    committed: list[TopicPartition] = []

    async def commit(offsets: dict[TopicPartition, object]) -> None:
        committed.extend(offsets)

    group = a_group(partitions, commit)
    offsets, accounts = Offsets(group), [Account(1), Account(1)]
    for partition, account in zip(partitions, accounts, strict=True):
        offsets.begin(partition, account, 0, "")
    accounts[0].closed = True
    await offsets.commit()
    assert committed == partitions[1:]


async def test_where_metadata_may_not_be_long_offsets_are_committed_without() -> None:
    """`offset.metadata.max.bytes` of the brokers: what is settled behind the offset is then sent again."""
    partition, tried = TopicPartition("kept", 0), list[OffsetAndMetadata]()

    async def commit(offsets: dict[TopicPartition, OffsetAndMetadata]) -> None:
        tried.append(offsets[partition])
        if offsets[partition].metadata:
            raise OffsetMetadataTooLargeError

    group = a_group([partition], commit)
    offsets, account = Offsets(group), Account(1, Settled(Ranges([(5, 9)])))
    offsets.begin(partition, account, 0, "")
    await offsets.commit()
    assert [mark.offset for mark in tried] == [1, 1]
    assert [bool(mark.metadata) for mark in tried] == [True, False]


async def test_metadata_that_the_brokers_refuse_is_made_shorter() -> None:
    """Until what is left fits: that is told at once, and the next commit is not sent twice."""
    partition, most, taken = TopicPartition("kept", 0), 300, list[str]()
    refused = 0

    async def commit(offsets: dict[TopicPartition, OffsetAndMetadata]) -> None:
        nonlocal refused
        if len(offsets[partition].metadata) > most:
            refused += 1
            raise OffsetMetadataTooLargeError
        taken.append(offsets[partition].metadata)

    group = a_group([partition], commit)
    offsets = Offsets(group)
    offsets.begin(partition, Account(1, Settled(Ranges((at, at + 1) for at in range(5, 2000, 2)))), 0, "")
    for _ in range(3):
        await offsets.commit(unchanged=True)
    assert (refused, len(taken), len(set(taken))) == (4, 3, 1)
    assert most / 2 < len(taken[-1]) <= most
    assert Settled.unpack(taken[-1], 1).records
