"""A run from start to audit: broker, destinations, every role, traffic, and waiting until all of it has arrived."""

from __future__ import annotations

import asyncio
import contextlib
import math
import secrets
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from pipeline.config import Config
from pipeline.demo.broker import EmbeddedBroker
from pipeline.demo.destinations import Destinations, Real, destinations
from pipeline.demo.ledger import Audit, Figures, Holdings, Ledger
from pipeline.demo.letters import DeadLetterReader
from pipeline.demo.produce import produce, raw_producer
from pipeline.demo.settings import DECISION_WAIT_SECONDS, NAMESPACE, SERIES_PER_METRIC, Endpoints, configuration
from pipeline.demo.traffic import RawTopics, Traffic
from pipeline.kafka.topics import Topics, ensure, topic_specs
from pipeline.worker import Worker, running
from schemas.errors import Unavailable

STEPS = 4
DRAIN_SECONDS = 45.0
"""After the last message: until then everything must have arrived."""

QUIET_SECONDS = 2.0
"""Nothing new for this long, and nothing is on the way: longer than commits, ticks and the sinks' batches together."""

SETTLED_SECONDS = 8.0
"""Nothing new for this long, and what is wrong stays wrong. Real servers may come back, so they get all the time."""

LOOK_SECONDS = 0.25

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says. `seconds` is how long traffic flows; infinite: until it is stopped."""

    seconds: float = math.inf
    rate: float = 400.0
    seed: int = 1
    real: Real = field(default_factory=Real)
    run_id: str = field(default_factory=lambda: secrets.token_hex(4))

    @property
    def prefix(self) -> str:
        """Two runs on one real Kafka do not meet."""
        return f"tailrace-demo-{self.run_id}" if self.real.kafka else "tailrace"


@dataclass(slots=True)
class Run:
    """A run under way. `stopping` ends the traffic, `hurry` the waiting after it."""

    options: Options
    ledger: Ledger
    config: Config
    worker: Worker
    destinations: Destinations
    letters: DeadLetterReader
    started: float = field(default_factory=time.monotonic)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    hurry: asyncio.Event = field(default_factory=asyncio.Event)
    sending: bool = True
    latest: Holdings = field(default_factory=Holdings)
    _looking: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def page(self) -> str:
        """Where the live page is."""
        return f"http://127.0.0.1:{self.worker.server.port}/live"

    @property
    def seconds(self) -> float:
        """Since the traffic began."""
        return time.monotonic() - self.started

    async def holdings(self) -> Holdings:
        """What the destinations and the dead-letter queue hold now; also in `latest`."""
        async with self._looking:
            holdings = await self.destinations.holdings(self.ledger)
            holdings.dead_letters = await self.letters.read()
            self.latest = holdings
        return holdings

    def audit(self, holdings: Holdings) -> Audit:
        """`holdings` against the ledger."""
        return self.ledger.audit(
            holdings,
            series_per_metric=SERIES_PER_METRIC,
            namespace=NAMESPACE,
            seconds=self.seconds,
            duplicates_allowed=self.destinations.remote,
        )

    async def send(self) -> None:
        """Send the traffic in real time, until it ends or `stopping` is set."""
        options = self.options
        traffic = Traffic(
            options.seed, options.rate, options.seconds, time.time_ns(), DECISION_WAIT_SECONDS, raw_topics(options)
        )
        self.started = time.monotonic()

        async def pace(at: float) -> bool:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self.stopping.wait(), max(0.0, self.started + at - time.monotonic()))
            return not self.stopping.is_set()

        async with raw_producer(self.config.kafka.bootstrap_servers[0]) as producer:
            await produce(producer, traffic.messages(), self.ledger, pace=pace)
        self.sending = False

    async def drain(self) -> Audit:
        """Wait until everything that was sent is where it belongs, or time is up; returns the last audit."""
        sent = changed = time.monotonic()
        before: Figures | None = None
        if self.destinations.remote:
            await self._hurried(DECISION_WAIT_SECONDS)  # looking costs a request per trace
        while True:
            holdings = await self.holdings()
            audit = self.audit(holdings)
            now = time.monotonic()
            arrived = audit.figures._replace(seconds=0.0)
            if arrived != before:
                before, changed = arrived, now
            decided = now - sent > DECISION_WAIT_SECONDS + QUIET_SECONDS
            quiet = now - changed
            right = decided and quiet > QUIET_SECONDS and not audit.violations
            settled = decided and quiet > SETTLED_SECONDS and not self.destinations.remote
            if right or settled or now - sent > DRAIN_SECONDS or self.hurry.is_set():
                return audit
            await self._hurried(LOOK_SECONDS)

    async def _hurried(self, seconds: float) -> None:
        """Sleep, unless there is a hurry."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.hurry.wait(), seconds)


def raw_topics(options: Options) -> RawTopics:
    """The raw topics of a run."""
    if not options.real.kafka:
        return RawTopics()
    run_id = options.run_id
    return RawTopics(spans=f"otlp_spans-{run_id}", logs=f"otlp_logs-{run_id}", json=f"app_logs-{run_id}")


@contextlib.asynccontextmanager
async def prepared(options: Options, say: Say) -> AsyncIterator[Run]:
    """Everything but the traffic, running; stopped in order on the way out.

    Raises Unavailable when something that was named does not answer.
    """
    async with contextlib.AsyncExitStack() as stack:
        real = options.real
        say(f"[1/{STEPS}] Kafka: " + (real.kafka or "an embedded broker"))
        broker = None if real.kafka else stack.enter_context(EmbeddedBroker())
        say(f"[2/{STEPS}] destinations: {_described(real)}")
        ends = await stack.enter_async_context(destinations(real))
        await ends.holdings(Ledger())  # whoever does not answer is named now, not at the end
        endpoints = Endpoints(
            kafka=broker.url if broker else real.kafka or "",
            jaeger=ends.jaeger,
            elasticsearch=ends.elasticsearch,
            prometheus=ends.prometheus,
            transactions=broker is None,
            prefix=options.prefix,
        )
        raw = raw_topics(options)
        config = configuration(endpoints, raw)
        say(f"[3/{STEPS}] topics")
        names = (raw.spans, raw.logs, raw.json)
        if broker:
            broker.create([*names, *(spec.name for spec in topic_specs(config))])
        else:
            await _create(endpoints.kafka, names, raw.partitions, config)
        say(f"[4/{STEPS}] roles: ingest, sample, aggregate, {', '.join(f'sink.{name}' for name in config.sinks)}")
        worker = await stack.enter_async_context(running(config, ["all"]))
        dlq = Topics(options.prefix).dlq
        letters = await stack.enter_async_context(DeadLetterReader(endpoints.kafka, dlq))
        yield Run(options, Ledger(), config, worker, ends, letters)


def _described(real: Real) -> str:
    servers = {"Jaeger": real.jaeger, "Elasticsearch": real.elasticsearch, "Prometheus": real.prometheus}
    return ", ".join(f"{name} at {url}" if url else f"a stand-in for {name}" for name, url in servers.items())


async def _create(bootstrap: str, raw: tuple[str, ...], partitions: int, config: Config) -> None:
    """The raw topics, as an operator would have made them, and the internal ones."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        topics = [NewTopic(name, partitions, 1) for name in raw]
        for topic in topics:
            topic.replication_factor = -1  # the broker's default, which the constructor refuses
        answer = await admin.create_topics(topics)
        wrong = [f"{error[0]}: error {error[1]}" for error in answer.topic_errors if error[1]]
    finally:
        await admin.close()
    problems = wrong or [str(problem) for problem in await ensure(config)]
    if problems:
        raise Unavailable("; ".join(problems))
