"""`tailrace demo` as a user runs it: right as it is, and not fooled by a worker that does one thing wrong."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.demo.ledger import Figures
from tests.end_to_end.begun import DEADLINE_SECONDS, begun
from tests.services import Elasticsearch, Jaeger, Kafka, Prometheus


class Finished(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def figures(self) -> dict[str, Any]:
        """The one object on standard output; fails if there is anything else."""
        figures: dict[str, Any] = json.loads(self.out)
        return figures


async def finished(process: asyncio.subprocess.Process) -> Finished:
    try:
        out, err = await asyncio.wait_for(process.communicate(), DEADLINE_SECONDS)
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode is not None
    return Finished(process.returncode, out.decode(), err.decode())


async def test_the_demo_is_right(tmp_path: Path) -> None:
    run = await finished(await begun(tmp_path, "pipeline.cli", "demo", "--seconds", "20", "--json"))
    assert run.code == 0, run.err
    figures = run.figures
    assert list(figures) == [*Figures._fields, "broken_messages", "ok"]
    assert figures["ok"]
    assert "dead letters" not in run.err, "its broken messages are sent on purpose"
    assert figures["broken_traces"] == 0
    assert figures["metric_spans"] == figures["spans_in"] > 4000
    assert figures["error_traces"] == figures["error_traces_kept"] > 0
    assert 0.01 <= figures["traces_kept"] / figures["traces_seen"] <= 0.6
    assert figures["logs_in"] > figures["logs_kept"] > figures["logs_correlated"] > 0
    assert figures["series_active"] <= figures["series_budget"]
    assert figures["dlq"] == figures["broken_messages"] > 0
    assert "Traceback" not in run.err


WRONG = {"drop_span": "lacks 1 of its", "split_trace": "was never sent", "lose_error": "was not kept"}
"""Mutations, and the words by which the demo names what they did."""


async def test_a_worker_that_does_one_thing_wrong_is_found(tmp_path: Path) -> None:
    module, arguments = "tests.end_to_end.mutated_demo", ("--seconds", "8", "--seed", "4", "--json")
    processes = [await begun(tmp_path, module, mutation, *arguments) for mutation in WRONG]
    runs = await asyncio.gather(*map(finished, processes))
    for (mutation, words), run in zip(WRONG.items(), runs, strict=True):
        assert run.code == 1, mutation
        assert words in run.err, (mutation, run.err)
    for run in runs[:2]:
        assert run.figures["broken_traces"] >= 1
    assert runs[2].figures["error_traces_kept"] < runs[2].figures["error_traces"]


async def test_an_interrupt_ends_with_a_right_summary(tmp_path: Path) -> None:
    process = await begun(tmp_path, "pipeline.cli", "demo", "--seconds", "600")
    assert process.stdout is not None
    while True:
        line = (await asyncio.wait_for(process.stdout.readline(), DEADLINE_SECONDS)).decode()
        assert line, "it ended by itself"
        if "kept: " in line and "kept: 0 " not in line and not line.split("series: ")[1].startswith("0 "):
            break
    process.send_signal(signal.SIGINT)
    run = await finished(process)
    assert "What you just saw" in run.out
    assert "Traceback" not in run.err


async def test_the_demo_is_right_on_real_servers(
    tmp_path: Path, kafka: Kafka, jaeger: Jaeger, elasticsearch: Elasticsearch, prometheus: Prometheus
) -> None:
    process = await begun(
        tmp_path, "pipeline.cli", "demo", "--seconds", "8", "--json", "--kafka", kafka.bootstrap,
        "--jaeger", jaeger.query_url, "--jaeger-otlp", jaeger.otlp_http, "--elasticsearch", elasticsearch.url,
        "--prometheus", prometheus.url,
    )  # fmt: skip
    run = await finished(process)
    assert run.code == 0, run.err
    assert run.figures["metric_spans"] == run.figures["spans_in"] > 1500
    assert run.figures["traces_kept"] > 0
    assert run.figures["logs_correlated"] > 0
