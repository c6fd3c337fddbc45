"""Partitions of two workers share a budget by what they want, through the log of decisions of a real Kafka."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, ClassVar

from processors.sampling.budget import EQUAL
from schemas.decision import DecisionRecord, limiters_of
from tests.pipeline.kafka import DEADLINE
from tests.pipeline.stages import Stages
from tests.services import Kafka, eventually

BUSY, QUIET = 9, 1  # traces of partitions 0 and 1 in each message


class Budgeted(Stages):
    """A policy that both partitions spend from."""

    SECTIONS: ClassVar[dict[str, Any]] = {
        "sampling": {
            "decision_wait": "1s",
            "policies": [{"name": "fleet", "type": "budget", "budget": {"spans_per_second": 40}}],
        }
    }

    async def shares(self) -> list[int]:
        """In the newest checkpoint of each partition."""
        found = [0, 0]
        for record in await self.records(self.topics.decisions):
            point = DecisionRecord.decode(record.value).checkpoint
            limiters = limiters_of(record.value, point.meant)
            assert limiters == point.limiters
            assert set(limiters_of(record.value, dict.fromkeys(point.meant, "another"))) == set()
            if "fleet" in limiters:
                found[record.partition] = limiters["fleet"][1][0]
        return found


def traces_of(turn: int) -> list[str]:
    """Names whose last character decides the partition: `0` is 48, `1` is 49."""
    return [f"t{turn}x{n}0/1" for n in range(BUSY)] + [f"t{turn}x{n}1/1" for n in range(QUIET)]


async def test_the_busy_partition_of_another_worker_has_the_larger_share(kafka: Kafka, tmp_path: Path) -> None:
    stages = Budgeted(kafka.bootstrap, tmp_path)
    await stages.create()
    try:
        for _ in range(2):
            stages.start("ingest", "sample")

        async def both() -> bool:
            return await stages.has_members("sample", 2)

        await eventually(both, DEADLINE, "two workers share the partitions")
        stop = asyncio.Event()

        async def traffic() -> None:
            turn = 0
            async with stages.producer() as producer:
                while not stop.is_set():
                    turn += 1
                    await stages.produce(producer, *traces_of(turn), partition=turn % 2)
                    await asyncio.sleep(0.05)

        async def shared() -> bool:
            busy, quiet = await stages.shares()
            return busy > 1.5 * EQUAL > 0.5 * EQUAL > quiet > 0.03 * EQUAL and busy + quiet < 2.1 * EQUAL

        running = asyncio.create_task(traffic())
        try:
            await eventually(shared, DEADLINE, "shares follow what partitions want")
        finally:
            stop.set()
            await running
    finally:
        stages.stop()
