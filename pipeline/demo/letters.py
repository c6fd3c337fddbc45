"""The dead-letter queue, read from its beginning: how many records it holds, and why."""

from __future__ import annotations

from collections import Counter

from aiokafka import AIOKafkaConsumer

from schemas.dead_letter import REPLAYED

POLL_MS = 200


class DeadLetterReader:
    """Counts records by their `reason` header. `read` takes what is there now."""

    def __init__(self, bootstrap_servers: str, topic: str) -> None:
        self.reasons: Counter[str] = Counter()
        # Without a group a subscription means all partitions of the topic.
        self._consumer = AIOKafkaConsumer(
            topic,
            bootstrap_servers=bootstrap_servers,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            fetch_max_wait_ms=100,
            max_partition_fetch_bytes=36 << 20,
        )

    async def __aenter__(self) -> DeadLetterReader:
        await self._consumer.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._consumer.stop()

    async def read(self) -> int:
        """The number of dead letters so far."""
        while batches := await self._consumer.getmany(timeout_ms=POLL_MS):
            for records in batches.values():
                for record in records:
                    headers = dict(record.headers)
                    if REPLAYED not in headers:
                        self.reasons[headers.get("reason", b"").decode()] += 1
        return self.reasons.total()
