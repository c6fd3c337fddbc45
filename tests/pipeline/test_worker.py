"""A worker that is told to stop, or refused, while it joins its groups."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.abc import ConsumerRebalanceListener
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    KafkaConnectionError,
    KafkaError,
    TopicAuthorizationFailedError,
)

from pipeline import roles, worker
from pipeline.watching.identity import config_hash, version
from pipeline.worker import running
from schemas.errors import ConfigError
from tests.pipeline.configs import MINIMAL, as_yaml, config_for
from tests.pipeline.kafka import DEADLINE
from tests.pipeline.stages import Stages, administration
from tests.repository import ROOT, python_path
from tests.services import Kafka, eventually
from tests.services.process import HOST

STOPPED_WITHIN = 25.0  # seconds: two clients may each take ten to end


class Sleeper(ConsumerRebalanceListener):  # type: ignore[misc]
    """A member that does not answer its group's rebalance until it is woken."""

    def __init__(self) -> None:
        self.woken = asyncio.Event()

    async def on_partitions_revoked(self, revoked: Collection[TopicPartition]) -> None:
        if revoked:
            await self.woken.wait()

    async def on_partitions_assigned(self, assigned: Collection[TopicPartition]) -> None:
        pass


async def test_one_that_still_joins_its_group_stops_when_it_is_told_to(kafka: Kafka, tmp_path: Path) -> None:
    """It waited until the group had let it in: behind a member that stands still, or without a coordinator."""
    stages, stopping, sleeper = await Stages(kafka.bootstrap, tmp_path).create(), asyncio.Event(), Sleeper()
    group = stages.topics.group("ingest")
    member = AIOKafkaConsumer(
        bootstrap_servers=stages.bootstrap,
        group_id=group,
        partition_assignment_strategy=(RangePartitionAssignor,),
        heartbeat_interval_ms=500,
        enable_auto_commit=False,
    )
    member.subscribe([stages.raw], listener=sleeper)
    await member.start()
    try:

        async def until_stopped() -> bool:
            async with running(stages.config, ["ingest"], stopping=stopping) as found:
                return bool(found.services[0].consumer.assignment())

        async def joining() -> bool:
            async with administration(stages.bootstrap) as admin:
                (answer,) = await admin.describe_consumer_groups([group])
            return bool(answer.groups[0][2] == "PreparingRebalance")

        working = asyncio.create_task(until_stopped())
        await eventually(joining, DEADLINE, "the group waits for its first member")
        stopping.set()
        assert not await asyncio.wait_for(working, STOPPED_WITHIN)
    finally:
        sleeper.woken.set()
        await member.stop()


async def test_one_whose_brokers_do_not_answer_says_so_and_stops_when_it_is_told_to(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each address would take as long as a request may, one after the other; the log said nothing meanwhile."""
    monkeypatch.setattr(roles, "SILENT", 0.1)
    caplog.set_level(logging.INFO, worker.__name__)
    stopping, asked = asyncio.Event(), asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        await reader.read()
        writer.close()

    async with await asyncio.start_server(silent, HOST) as server:
        port = server.sockets[0].getsockname()[1]

        async def until_stopped() -> None:
            async with running(config_for(f"{HOST}:{port}"), ["ingest"], stopping=stopping):
                pass

        working = asyncio.create_task(until_stopped())
        await asyncio.wait_for(asked.wait(), DEADLINE)

        async def told() -> bool:
            return "waiting for Kafka" in caplog.text

        await eventually(told, DEADLINE, "the log says what it waits for")
        stopping.set()
        await asyncio.wait_for(working, STOPPED_WITHIN)
    waiting = next(each.__dict__ for each in caplog.records if each.message == "waiting for Kafka")
    assert (waiting["servers"], waiting["error"]) == ([f"{HOST}:{port}"], "no answer yet")
    start = next(each.__dict__ for each in caplog.records if each.message == "a worker starts")
    assert start["hash"] == config_hash(config_for(f"{HOST}:{port}"))
    assert (start["version"], start["roles"]) == (version(), ["ingest"])


async def test_a_session_that_the_brokers_refuse_is_told_as_its_key(kafka: Kafka, tmp_path: Path) -> None:
    stages = await Stages(kafka.bootstrap, tmp_path, session_timeout="3s").create()
    with pytest.raises(ConfigError, match=r"kafka\.session_timeout: the brokers do not take 3s"):
        await worker.run(stages.config, ["ingest"])


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (GroupAuthorizationFailedError("tailrace.ingest"), "`tailrace acls FILE --role ingest` prints"),
        (TopicAuthorizationFailedError("raw"), "`tailrace acls FILE --role ingest` prints"),
        (KafkaConnectionError("gone"), "the groups cannot be joined: KafkaConnectionError: gone"),
    ],
)
async def test_a_group_that_lets_nobody_in_is_one_line_of_the_log(
    kafka: Kafka,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    error: KafkaError,
    said: str,
) -> None:
    async def refused(self: AIOKafkaConsumer) -> None:
        if self._group_id is not None:
            raise error
        await own_start(self)

    own_start = AIOKafkaConsumer.start
    monkeypatch.setattr(AIOKafkaConsumer, "start", refused)
    stages = await Stages(kafka.bootstrap, tmp_path).create()
    assert await worker.run(stages.config, ["ingest"]) == 1
    (record,) = [each for each in caplog.records if each.levelno >= logging.ERROR and each.name == worker.__name__]
    assert record.exc_info is None
    assert said in record.__dict__["error"]


def of_the_command(tmp_path: Path, first: str = "", **settings: object) -> subprocess.CompletedProcess[str]:
    """A worker that does not stay; `first` is what its process does before."""
    file = tmp_path / "tailrace.yaml"
    file.write_text(as_yaml(MINIMAL | settings), encoding="utf-8")
    program = f"import os, signal\n{first}\nfrom pipeline.cli import main\nmain()"
    command = [sys.executable, "-c", program, "worker", "--config", str(file), "--role", "ingest"]
    environment = {**os.environ, "PYTHONPATH": python_path()}
    return subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=DEADLINE, check=False
    )


def test_a_port_that_is_taken_may_be_free_after_a_restart(tmp_path: Path) -> None:
    """With 78 systemd would not try again."""
    with socket.socket() as other:
        other.bind((HOST, 0))
        other.listen()
        port = other.getsockname()[1]
        done = of_the_command(tmp_path, telemetry={"port": port})
    assert done.returncode == 1, done.stderr
    assert f"{HOST}:{port}: Address already in use; another process has it" in done.stderr


@pytest.mark.parametrize("module", ["pipeline.config", "pipeline.worker"])
@pytest.mark.parametrize(("number", "code"), [("SIGTERM", 0), ("SIGHUP", 78)])
def test_a_signal_while_it_begins_is_no_failure(tmp_path: Path, module: str, number: str, code: int) -> None:
    """As `systemctl reload 'tailrace@*'` asks it of one that has just been started again, or a rollout that goes on.

    What it imports takes most of the time until it has begun.
    """
    first = f"""
import sys
class Comes:
    def find_spec(self, name, *_):
        if name == {module!r}:
            os.kill(os.getpid(), signal.{number})
sys.meta_path.insert(0, Comes())
"""
    done = of_the_command(tmp_path, first, telemetry={"port": -1})
    assert done.returncode == code, done.stderr
