"""The main job: three programs with the official SDK, a real Collector, Kafka, every role, three real destinations."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path

from pipeline.configuration.config_file import load
from tests.deploy.dashboards import queries
from tests.end_to_end import holdings, observed, truth
from tests.end_to_end.harness import Destinations, Pipeline, running
from tests.pipeline.kafka import fresh
from tests.repository import ROOT
from tests.services import Kafka, Prometheus, Server, free_port, start_collector
from tests.services.process import HOST, answers, guarded

REQUESTS = 160
RATE = 16.0  # per second
DECISION_WAIT = 5.0  # the slowest request and its exports, with room for a busy machine
EXPORTED_SECONDS = 60.0


class Service(Server):
    """A program that answers requests."""

    name = "program"

    def __init__(self, service: str, collector: str, ledger: Path, behind: str) -> None:
        super().__init__()
        self._arguments = [service, "--collector", collector, "--truth", str(ledger), "--behind", behind]
        self._port = free_port()
        self.url = f"http://{HOST}:{self._port}/{service}"

    def command(self) -> list[str]:
        """The module, from this checkout."""
        return [sys.executable, "-m", "tests.end_to_end.programs", *self._arguments, "--port", str(self._port)]

    def is_ready(self) -> bool:
        """Whether it answers."""
        return answers(f"http://{HOST}:{self._port}/health")

    def stop(self) -> None:
        """SIGTERM; it exports what it has first."""
        super().stop()
        assert self._process is not None
        assert self._process.wait() == 0, self.log.read_text()


@asynccontextmanager
async def programs(collector: str, folder: Path) -> AsyncIterator[None]:
    """orders and payments, while the block runs the storefront; then all have exported everything."""
    with ExitStack() as stack:
        behind = ""
        for service in ("payments", "orders"):
            program = Service(service, collector, folder / f"{service}.jsonl", behind)
            await asyncio.to_thread(stack.enter_context, program)
            behind = program.url
        truth_file = str(folder / "storefront.jsonl")
        command = [sys.executable, "-m", "tests.end_to_end.programs", "storefront", "--collector", collector]
        command += ["--truth", truth_file, "--behind", behind, "--count", str(REQUESTS), "--rate", str(RATE)]
        storefront = await asyncio.create_subprocess_exec(*guarded(command), cwd=ROOT)
        yield
        async with asyncio.timeout(EXPORTED_SECONDS):
            assert await storefront.wait() == 0


async def test_what_three_programs_made_arrives(every_kafka: Kafka, destinations: Destinations, tmp_path: Path) -> None:
    wait = {"sampling": {"decision_wait": DECISION_WAIT}}
    name = fresh("main-job")
    async with running(Pipeline(every_kafka, tmp_path, name, wait, destinations)) as pipeline, AsyncExitStack() as ends:
        with await asyncio.to_thread(
            start_collector, every_kafka.bootstrap, pipeline.spans_topic, pipeline.logs_topic
        ) as collector:
            async with programs(collector.otlp_http, tmp_path):
                worker = await pipeline.start("all")
                ends.enter_context(destinations.prometheus.scraping(pipeline.name, [worker.address]))
        made = truth.read(tmp_path / f"{service}.jsonl" for service in ("storefront", "orders", "payments"))
        assert len(made.traces) == REQUESTS
        await pipeline.settled()
        truth.assert_true(made, await holdings.of_servers(pipeline, made))
        assert not await pipeline.records([pipeline.topics.dlq])

        failed = next(trace_id for trace_id, policy in made.kept.items() if policy == "error-logs")
        assert await holdings.found_by_trace(pipeline, failed) == made.traces[failed].logs.keys()

        assert not await observed.empty_panels(destinations.prometheus, pipeline.name, pipeline.namespace)
        assert not observed.late_counters(load(pipeline.file, {}), worker.samples())


async def test_panels_of_an_installation_that_is_not_there_are_empty(prometheus: Prometheus) -> None:
    """So the main job's check can fail; only what counts events shows that there were none."""
    empty = await observed.empty_panels(prometheus, "nobody", "nobody")
    shown = {title for title, _ in queries()} - {line.split(":")[0] for line in empty}
    assert shown == {"Roles not ready", "Dead letters in the last hour", "Records expired in the last hour"}
