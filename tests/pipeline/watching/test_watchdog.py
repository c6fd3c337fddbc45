"""What stands still stops the worker, exit code 1, and says where; a destination that is away does not."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pytest

from pipeline import config
from pipeline.kafka import consume
from pipeline.kafka.admin import partition_counts
from pipeline.watching.watchdog import Watchdog, awaited
from pipeline.worker import running
from schemas import kafka_connect
from schemas.errors import Unavailable
from tests.pipeline.kafka import DEADLINE
from tests.pipeline.stages import Stages, holds
from tests.repository import ROOT, python_path
from tests.services import Kafka
from tests.services.process import HOST, dead_addresses, free_port, guarded


def test_what_changes_or_is_gone_does_not_stand() -> None:
    dog = Watchdog(60)
    assert dog.look(0, {"a": 1, "b": 1}) == {"a": 0, "b": 0}
    assert dog.look(10, {"a": 1, "b": 2}) == {"a": 10, "b": 0}
    assert dog.look(20, {"b": 2}) == {"b": 10}
    assert dog.look(30, {"a": 1, "b": 2}) == {"a": 0, "b": 20}, "it had nothing to do in between"
    dog.forget()
    assert dog.look(40, {"b": 2}) == {"b": 0}


async def test_where_a_task_waits() -> None:
    async def inner() -> None:
        await asyncio.Event().wait()

    async def outer() -> None:
        await inner()

    task = asyncio.create_task(outer())
    await asyncio.sleep(0)
    assert [place.split(":")[0] for place in awaited(task).split(" > ")] == ["outer", "inner", "wait"]
    task.cancel()


class Watched(Stages):
    SECTIONS: ClassVar = {"watchdog": {"timeout": "3s"}}


STUCK = """
import asyncio, time
from pipeline.kafka import consume
from pipeline.kafka.admin import partition_counts
from pipeline.ingest import RawPartition
{first}
async def stuck(self): {how}
RawPartition.{what} = stuck
from pipeline.cli import main
main()
"""


@pytest.mark.parametrize(
    ("first", "what", "how", "said"),
    [
        ("", "_commit", "await asyncio.Event().wait()", "lease of "),
        ("", "_commit", "time.sleep(1000)", "Timeout (0:00:03)"),
        ("consume.TAKEOVER_LEAST = 0", "open", "await asyncio.Event().wait()", "takeover of "),
    ],
    ids=["a commit that never ends", "a loop that stands", "a takeover that never ends"],
)
async def test_a_worker_that_stands_still_exits(
    kafka: Kafka, tmp_path: Path, first: str, what: str, how: str, said: str
) -> None:
    stages = Watched(kafka.bootstrap, tmp_path)
    await stages.create(raw=1)
    async with stages.producer() as producer:
        await stages.produce(producer, "t1/1")
    program = STUCK.format(first=first, what=what, how=how)
    command = [sys.executable, "-c", program, "worker", "--config", str(stages.file), "--role", "ingest"]
    process = await asyncio.create_subprocess_exec(
        *guarded(command), cwd=ROOT, env={**os.environ, "PYTHONPATH": python_path()}, stderr=subprocess.PIPE
    )
    try:
        _, errors = await asyncio.wait_for(process.communicate(), DEADLINE)
    finally:
        if process.returncode is None:
            process.kill()
    assert process.returncode == 1
    assert said in errors.decode()
    assert "stuck" in errors.decode(), "where it stands"


async def test_a_destination_that_is_away_is_waited_for(kafka: Kafka, tmp_path: Path) -> None:
    """However long that is: it is back-pressure, and has its own alert (SinkStuck)."""
    stages = Watched(kafka.bootstrap, tmp_path)
    stages.settings["watchdog"] = {"timeout": "3s"}
    stages.settings["sinks"] = {"otlp": {"endpoint": f"http://{HOST}:{free_port()}", "timeout": "5s"}}
    stages.config = config.Config.model_validate(stages.settings)
    await stages.create(raw=1)
    async with stages.producer() as producer:
        await stages.produce(producer, "t1/1!")
    async with running(stages.config, ["all"]) as worker:
        await holds(worker, "ingest", "sample")
        await stages.settled()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(worker.wait(), 8.0)


async def test_a_takeover_that_waits_for_addresses_that_are_dead_is_no_reason(
    kafka: Kafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a list of brokers that were replaced: those that are there answer on the connections there are."""
    monkeypatch.setattr(consume, "TAKEOVER_LEAST", 0.0)
    monkeypatch.setattr(kafka_connect, "CONNECT_LIMIT", 0.2)
    stages = Watched(kafka.bootstrap, tmp_path)
    await stages.create(raw=1)
    with dead_addresses(2) as dead:
        async with running(stages.config, ["ingest"]) as worker:
            await holds(worker, "ingest")
            (group,) = (service for service in worker.services if service.role == "ingest")
            servers = stages.config.kafka.bootstrap_servers
            living, servers[:] = [*servers], dead
            with pytest.raises(Unavailable):
                await partition_counts(stages.config)
            monkeypatch.setattr(kafka_connect, "CONNECT_LIMIT", 9.0)  # beyond the watchdog's
            await group.renew(group._make)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(worker.wait(), 7.0)
            servers[:] = living
            await holds(worker, "ingest")
