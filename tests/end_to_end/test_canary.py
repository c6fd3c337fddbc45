"""The canary on real servers: complete everywhere, a stopped sink, a backend that is away, brokers that are away."""

from __future__ import annotations

import asyncio
import sys
import urllib.request
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from tests.end_to_end.harness import Destinations, Pipeline, running
from tests.repository import ROOT
from tests.services import Kafka, Server, eventually, free_port
from tests.services.process import HOST, answers, guarded

DECISION_WAIT = 1.0
TIMEOUT = 10.0  # seconds until a trace is missing: room for a busy machine
DEADLINE = 60.0
BACKENDS = {"jaeger", "elasticsearch", "prometheus"}
REST = ("ingest", "sample", "aggregate", "sink.elasticsearch", "sink.prometheus")


class Canary(Server):
    """`tailrace canary` as a process."""

    name = "canary"

    def __init__(self, config: Path, port: int) -> None:
        super().__init__()
        self._config, self._url = config, f"http://{HOST}:{port}"

    def command(self) -> list[str]:
        """The console script's module, from this checkout."""
        return [
            "env",
            f"PYTHONPATH={ROOT}",
            sys.executable,
            "-m",
            "pipeline.cli",
            "canary",
            "--config",
            str(self._config),
        ]

    def is_ready(self) -> bool:
        """Whether its pages are there."""
        return answers(f"{self._url}/readyz")

    def told(self, name: str, **labels: str) -> dict[str, float]:
        """A metric by backend."""
        with urllib.request.urlopen(f"{self._url}/metrics") as page:
            families = list(text_string_to_metric_families(page.read().decode()))
        samples = [s for family in families for s in family.samples if s.name == name]
        return {s.labels["backend"]: s.value for s in samples if labels.items() <= s.labels.items()}


def section(destinations: Destinations, port: int) -> dict[str, Any]:
    return {
        "interval": "500ms",
        "timeout": f"{TIMEOUT}s",
        "port": port,
        "jaeger": {"endpoint": destinations.jaeger.query_url},
        "elasticsearch": {"endpoint": destinations.elasticsearch.url},
        "prometheus": {"endpoint": destinations.prometheus.url},
    }


async def once(pipeline: Pipeline) -> tuple[int, str]:
    """`tailrace canary --once`: exit code and what it said."""
    process = await asyncio.create_subprocess_exec(
        *guarded([sys.executable, "-m", "pipeline.cli", "canary", "--config", str(pipeline.file), "--once"]),
        cwd=ROOT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await process.communicate()
    return process.returncode or 0, said.decode()


async def test_a_stopped_sink_is_noticed_and_so_is_its_return(
    kafka: Kafka, destinations: Destinations, tmp_path: Path
) -> None:
    port = free_port()
    settings = {"sampling": {"decision_wait": DECISION_WAIT}, "canary": section(destinations, port)}
    async with running(Pipeline(kafka, tmp_path, "canary", settings, destinations)) as pipeline:
        sink, _ = await asyncio.gather(pipeline.start("sink.jaeger"), pipeline.start(*REST))
        code, said = await once(pipeline)
        assert code == 0, said
        assert {line.split()[1].rstrip(":") for line in said.splitlines() if line.startswith("✓")} == BACKENDS

        with await asyncio.to_thread(Canary(pipeline.file, port).start) as canary:

            async def complete() -> bool:
                ratios = canary.told("tailrace_canary_completeness_ratio")
                return ratios == dict.fromkeys(BACKENDS, 1.0)

            async def without_jaeger() -> bool:
                ratios = canary.told("tailrace_canary_completeness_ratio")
                return ratios == dict.fromkeys(BACKENDS, 1.0) | {"jaeger": 0.0}

            await eventually(complete, DEADLINE, "the canary is everywhere")
            assert canary.told("tailrace_canary_freshness_seconds").keys() == BACKENDS
            await asyncio.to_thread(sink.stop)
            (code, said), _ = await asyncio.gather(
                once(pipeline), eventually(without_jaeger, DEADLINE, "it misses itself in Jaeger, and only there")
            )
            assert canary.told("tailrace_canary_traces_total", outcome="incomplete")["jaeger"] >= 1
            assert code == 1
            assert "✗ jaeger: incomplete, 0 of 2 after" in said
            await asyncio.to_thread(sink.start)
            await eventually(complete, DEADLINE, "it is everywhere again")


async def test_what_is_away_is_named(kafka: Kafka, destinations: Destinations, tmp_path: Path) -> None:
    """No worker runs: nothing arrives anywhere; one backend does not even answer; then the brokers do not."""
    away = {"endpoint": f"http://{HOST}:{free_port()}"}
    canary = section(destinations, 0) | {"timeout": "1500ms", "jaeger": away}
    settings: dict[str, Any] = {"sampling": {"decision_wait": DECISION_WAIT}, "canary": canary, "kafka": {}}
    async with running(Pipeline(kafka, tmp_path, "canary-away", settings, destinations)) as pipeline:
        code, said = await once(pipeline)
        assert code == 1
        assert "✗ jaeger: unreachable, 0 of 2 after" in said
        assert "✗ elasticsearch: incomplete, 0 of 1 after" in said
        assert "✗ prometheus: incomplete, 0 of 2 after" in said
        pipeline.settings["kafka"] = {"bootstrap_servers": f"{HOST}:{free_port()}"}
        pipeline.write()
        code, said = await once(pipeline)
        assert code == 1
        assert said.count("unsent") == len(BACKENDS)
        assert "Kafka did not take it" in said
