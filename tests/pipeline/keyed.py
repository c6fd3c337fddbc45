"""`sample` on raw topics that are keyed by trace id."""

from __future__ import annotations

import zlib

from aiokafka import AIOKafkaProducer

from tests.pipeline.stages import Stages, log_of


class Keyed(Stages):
    """One pipeline without ingest: raw topics with N partitions each, keyed by the name of the trace."""

    SECTIONS = {"regroup": "never"}

    def placed(self, name: str) -> int:
        """Where a trace goes: some hash, which is not that of Tailrace."""
        return zlib.crc32(name.split("/")[0].encode()) % self.config.kafka.partitions

    async def produce(
        self, producer: AIOKafkaProducer, *names: str, partition: int | None = None, at: int | None = None
    ) -> None:
        """Spans, each trace where it belongs unless `partition` says otherwise."""
        by_place: dict[int, list[str]] = {}
        for name in names:
            by_place.setdefault(self.placed(name), []).append(name)
        for place, found in by_place.items():
            await super().produce(producer, *found, partition=place, at=at)

    async def log(self, producer: AIOKafkaProducer, name: str, body: str) -> None:
        """A log of a trace; without a name it belongs to none."""
        topic = f"{self.raw}.logs"
        await producer.send_and_wait(topic, log_of(name, body), partition=self.placed(name) if name else 0)
