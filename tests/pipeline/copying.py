"""A minimal exactly-once role: copies values from one topic to another, partition to partition.

It is what tests/pipeline/kafka/test_consume.py measures consuming and committing with, in this process or as
`python -m tests.pipeline.copying BOOTSTRAP FROM TO`.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from typing import Any

from aiokafka import ConsumerRecord, TopicPartition
from aiokafka.structs import OffsetAndMetadata

from pipeline.config import Watchdog
from pipeline.kafka.commit import Output, Transaction
from pipeline.kafka.consume import Group
from pipeline.kafka.lease import Lease
from pipeline.watching.settings import Telemetry
from pipeline.worker import Worker, application
from tests.pipeline.configs import config_for

INTERVAL = 0.1  # seconds between transactions


class Copy(Lease):
    """One partition, copied."""

    def __init__(self, owner: Group, partition: TopicPartition, target: str) -> None:
        self.group, self.partition, self.target = owner, partition, target
        self.transaction = Transaction(owner.kafka, owner, f"copy.{target}.{partition.partition}")
        self.pending: list[bytes] = []
        self.next = self.committed = self.rounds = 0

    async def open(self) -> Mapping[TopicPartition, int]:
        await self.transaction.start()
        found = await self.group.committed([self.partition])
        self.next = self.committed = found[self.partition].offset if found else 0
        return self.positions()

    def process(self, partition: TopicPartition, records: Sequence[ConsumerRecord]) -> None:
        for record in records:
            if record.offset >= self.next:
                self.pending.append(record.value)
                self.next = record.offset + 1

    def positions(self) -> Mapping[TopicPartition, int]:
        return {self.partition: self.next}

    async def work(self) -> None:
        while True:
            self.rounds += 1
            await asyncio.sleep(INTERVAL)
            await self.finish()

    def progress(self) -> int:
        return self.rounds

    async def finish(self) -> None:
        if self.next > self.committed:
            values, self.pending, until = self.pending, [], self.next
            outputs = [Output(self.target, value, self.partition.partition) for value in values]
            await self.transaction.commit(outputs, {self.partition: OffsetAndMetadata(until, "")})
            self.committed = until

    async def close(self) -> None:
        await self.transaction.stop()


def copier(
    bootstrap: str,
    source: str,
    target: str,
    made: Callable[[Copy], None] = lambda _: None,
    watchdog: float = 60.0,
    **settings: Any,
) -> Worker:
    """A worker whose only role copies `source` to `target`; `made` sees every lease."""
    app = application("copier")
    kafka = {"session_timeout": 6.0, "heartbeat_interval": 0.5, **settings, "prefix": target}
    config = config_for(bootstrap, **kafka).model_copy(update={"watchdog": Watchdog(timeout=watchdog)})

    def lease(owner: Group, unit: Hashable, partitions: Collection[TopicPartition]) -> Lease:
        (partition,) = partitions
        copy = Copy(owner, partition, target)
        made(copy)
        return copy

    return Worker(app, [Group(app, config, "copy", [source], lease)], Telemetry(port=0))


async def main(bootstrap: str, source: str, target: str) -> None:
    """Copy until SIGTERM."""
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    worker = copier(bootstrap, source, target)
    await worker.start()
    await stop.wait()
    await worker.stop()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
