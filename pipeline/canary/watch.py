"""Sends traces, looks for them, and says how complete and how fresh each backend is.

A trace is settled at a backend when it is complete there or when `canary.timeout` has passed. Nothing waits: a trace is
sent every interval whatever became of those before.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError

from pipeline import telemetry
from pipeline.canary.backends import Looker
from pipeline.canary.probe import Probe, probe
from pipeline.config import Config
from pipeline.kafka.security import client_kwargs
from pipeline.kafka.topics import canary_topics
from schemas.errors import Unavailable
from schemas.ids import partition_of
from schemas.kafka_client import told

log = logging.getLogger(__name__)

POLL = 1.0  # seconds between looks at a backend
SEND_LIMIT = 10.0  # seconds that the brokers may take for a trace
SLACK = 60.0  # seconds beyond the waits that are asked for, before a trace is missing
OUTCOMES = ("complete", "incomplete", "unreachable", "unsent")


@dataclass(frozen=True, slots=True)
class Finding:
    """What became of one trace at one backend."""

    backend: str
    outcome: str
    found: int
    expected: int
    seconds: float
    trace_id: str
    detail: str = ""

    def __str__(self) -> str:
        text = f"{self.backend}: {self.outcome}, {self.found} of {self.expected} after {self.seconds:.1f} s"
        if self.outcome != "complete":
            text += f"; trace {self.trace_id}"
        return f"{text}; {self.detail}" if self.detail else text


class Watch:
    """One canary."""

    def __init__(self, config: Config, lookers: Sequence[Looker], rng: random.Random | None = None) -> None:
        assert config.canary is not None
        self._config, self._canary, self._lookers = config, config.canary, lookers
        self._rng = rng or random.SystemRandom()
        self._topics = canary_topics(config)
        self._producer: AIOKafkaProducer = None
        self._opening = asyncio.Lock()

    @property
    def timeout(self) -> float:
        """Seconds after which a trace is missing."""
        if self._canary.timeout is not None:
            return self._canary.timeout
        return self._config.sampling.decision_wait + self._config.metrics.interval + SLACK

    async def run(self) -> None:
        """For ever: one trace every interval."""
        for looker in self._lookers:
            for outcome in OUTCOMES:
                telemetry.count("tailrace_canary_traces_total", 0, backend=looker.name, outcome=outcome)
        async with asyncio.TaskGroup() as tasks:
            while True:
                tasks.create_task(self._tell())
                await asyncio.sleep(self._canary.interval)

    async def _tell(self) -> None:
        for finding in await self.once():
            complete = finding.outcome == "complete"
            telemetry.count("tailrace_canary_traces_total", backend=finding.backend, outcome=finding.outcome)
            share = finding.found / finding.expected
            telemetry.gauge("tailrace_canary_completeness_ratio", share, backend=finding.backend)
            if complete:
                telemetry.gauge("tailrace_canary_freshness_seconds", finding.seconds, backend=finding.backend)
            else:
                log.warning("the canary did not arrive", extra={"backend": finding.backend, "finding": str(finding)})

    async def once(self) -> list[Finding]:
        """Send one trace; what became of it at each backend, once all are settled."""
        sent = probe(self._rng, time.time_ns(), time.monotonic())
        await asyncio.gather(*(self._before(looker, sent) for looker in self._lookers))
        try:
            await self._send(sent)
        except (KafkaError, OSError, TimeoutError) as error:
            reason = f"no answer within {SEND_LIMIT:g} s" if isinstance(error, TimeoutError) else told(error)
            why = f"Kafka did not take it: {reason}"
            for looker in self._lookers:
                looker.unsent(sent)
            return [self._finding(each, sent, "unsent", 0, why) for each in self._lookers]
        return list(await asyncio.gather(*(self._look(looker, sent) for looker in self._lookers)))

    async def close(self) -> None:
        """Disconnect from everything."""
        for looker in self._lookers:
            await looker.close()
        if self._producer is not None:
            await self._producer.stop()

    async def _before(self, looker: Looker, sent: Probe) -> None:
        try:
            await looker.before(sent)
        except Unavailable as error:
            log.warning("a backend does not answer", extra={"backend": looker.name, "error": str(error)})

    async def _send(self, sent: Probe) -> None:
        async with asyncio.timeout(SEND_LIMIT):
            producer = await self._opened()
            spans, logs = self._topics
            messages = [(spans, value) for value in sent.spans()] + [(logs, value) for value in sent.logs()]
            # Spread over the partitions, as producers that know nothing of traces do it, or all by the trace id.
            by_id = partition_of(sent.trace_id, self._config.kafka.partitions)
            keyed = self._config.regroup == "never" and not self._config.reads_whole_topics
            partition = by_id if keyed else None
            acks = [await producer.send(topic, value, partition=partition) for topic, value in messages]
            await asyncio.gather(*acks)

    async def _opened(self) -> AIOKafkaProducer:
        async with self._opening:
            if self._producer is None:
                producer = AIOKafkaProducer(acks="all", **client_kwargs(self._config.kafka))
                try:
                    await producer.start()
                except BaseException:
                    await producer.stop()
                    raise
                self._producer = producer
            return self._producer

    async def _look(self, looker: Looker, sent: Probe) -> Finding:
        found, detail, answered = 0, "", False
        while True:
            try:
                found, detail, answered = await looker.found(sent), "", True
            except Unavailable as error:
                detail, answered = str(error), False
            complete = found >= looker.expected
            if complete or _age(sent) >= self.timeout:
                looker.settled(sent, answered)
                outcome = "complete" if complete else "incomplete" if answered else "unreachable"
                return self._finding(looker, sent, outcome, found, detail)
            await asyncio.sleep(POLL)

    def _finding(self, looker: Looker, sent: Probe, outcome: str, found: int, detail: str) -> Finding:
        return Finding(looker.name, outcome, found, looker.expected, _age(sent), sent.trace_id.hex(), detail)


def _age(sent: Probe) -> float:
    return time.monotonic() - sent.sent
