"""`sample` behind an ingest that is the test itself."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from aiokafka import AIOKafkaProducer

from pipeline.worker import running
from processors.regroup import Regroup
from tests.pipeline.kafka import DEADLINE
from tests.pipeline.stages import Stages, now, traces
from tests.services import Kafka, eventually

HOUR = 3_600_000


class Fed(Stages):
    """One partition of sample, fed by hand: raw time is what the test says, in ms from an hour ago on."""

    def __init__(self, kafka: Kafka, folder: Path, **kafka_settings: object) -> None:
        super().__init__(kafka.bootstrap, folder, partitions=1, **kafka_settings)
        self.start_ms = now() - HOUR
        self._offset = 0

    async def feed(self, producer: AIOKafkaProducer, time: int, *spans: str, logs: bool = True, n: int = 1) -> None:
        """Spans at this time, with a mark of it; without spans a mark. And the same mark of the raw logs."""
        listed = {self.raw: 1, f"{self.raw}.logs": 1}
        for topic, raw, names in ((self.topics.spans, self.raw, spans), (self.topics.logs, f"{self.raw}.logs", ())):
            regroup = Regroup(raw, 0, "traces", "otlp_proto", n, 1 << 20, 1 << 20)
            if names:
                regroup.add(self._offset, self.start_ms + time, traces(*names))
                self._offset += 1
                for name in names:
                    self.produced[name] = self.produced.get(name, 0) + 1
            if topic == self.topics.spans or logs:
                (value, *_), *_ = regroup.flush(self.start_ms + time, listed).envelopes.values()
                await producer.send_and_wait(topic, value, partition=0)

    async def kept(self, *names: str) -> Counter[str]:
        """Names in kept.spans, once all of these are there."""

        async def there() -> bool:
            return set(names) <= set(await self.names(self.topics.kept_spans))

        await eventually(there, DEADLINE, f"{names} are kept")
        return await self.names(self.topics.kept_spans)

    async def history(self, producer: AIOKafkaProducer) -> None:
        """Two traces in two transactions of sample, which then leaves."""
        async with running(self.config, ["sample"]):
            await self.feed(producer, 0, "a/1!")
            await self.feed(producer, 2_000)
            await self.kept("a/1!")
            await self.feed(producer, 3_000, "b/1!")
            await self.feed(producer, 5_000)
            await self.kept("b/1!")
