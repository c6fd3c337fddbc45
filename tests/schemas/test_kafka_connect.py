"""Brokers that are powered off: no client waits for them while others answer, and each is named if none does."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import logging
import os
import resource
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import aiokafka.client
import aiokafka.conn
import pytest
import uvloop
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.conn import AIOKafkaConnection
from aiokafka.errors import IncompatibleBrokerVersion, KafkaConnectionError, KafkaError

from pipeline.kafka.overheard import Overheard
from pipeline.operating.connect import connect
from schemas import kafka_connect
from schemas.kafka_client import Security, connection, told
from tests.pipeline.configs import config_for
from tests.services import Kafka
from tests.services.process import HOST, dead_addresses, free_port

DEADLINE = 30.0  # seconds; one address alone would be waited for longer
NEVER = 1_000.0
BLOCKED = 2.0


@pytest.fixture(autouse=True)
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_answered", "_silent", "_away", "_failed"):
        monkeypatch.setattr(kafka_connect, name, type(getattr(kafka_connect, name))())
    monkeypatch.setattr(kafka_connect, "PATIENCE", 0.2)


@pytest.fixture
def dead() -> Iterator[list[str]]:
    with dead_addresses(3) as addresses:
        yield addresses


async def test_clients_do_not_wait_for_addresses_that_are_dead(
    kafka: Kafka, dead: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(kafka_connect, "CONNECT_LIMIT", NEVER)
    for client, close in (
        (AIOKafkaAdminClient, "close"),
        (AIOKafkaConsumer, "stop"),
        (AIOKafkaProducer, "stop"),
        (AIOKafkaConsumer, "stop"),
    ):
        begun = client(**connection([*dead, kafka.bootstrap], Security(), "kafka.security"))
        await asyncio.wait_for(begun.start(), DEADLINE)
        await getattr(begun, close)()
    assert not kafka_connect.away([kafka.bootstrap, *dead])
    passed_over = [record.getMessage() for record in caplog.records if record.name == "aiokafka"]
    assert len(passed_over) <= 1, "the one that answered is asked first from then on"
    assert all(f"and {kafka.bootstrap} answers" in line for line in passed_over)


async def test_one_that_refuses_is_passed_over_at_once(kafka: Kafka, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_connect, "PATIENCE", NEVER)
    addresses = [*(f"{HOST}:{free_port()}" for _ in range(3)), kafka.bootstrap]
    consumer = AIOKafkaConsumer(**connection(addresses, Security(), "kafka.security"))
    await asyncio.wait_for(consumer.start(), DEADLINE)
    await consumer.stop()


async def test_one_that_answers_while_the_loop_is_blocked_is_not_said_to_be_silent(
    kafka: Kafka, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(kafka_connect, "PATIENCE", BLOCKED / 2)
    connect = AIOKafkaConnection.connect
    asked: list[str] = []

    def block_and_connect(connection: AIOKafkaConnection) -> Any:
        if not asked:
            time.sleep(BLOCKED)
        asked.append(connection.host)
        return connect(connection)

    monkeypatch.setattr(AIOKafkaConnection, "connect", block_and_connect)
    race = kafka_connect._Race([(HOST, port := int(kafka.bootstrap.partition(":")[2])), ("localhost", port)])
    (await race.connection("localhost", port, {})).close()
    assert asked == [HOST]
    assert not [record for record in caplog.records if "Unable connect" in record.getMessage()]


async def test_each_address_is_named_with_its_reason_if_none_answers(
    dead: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kafka_connect, "CONNECT_LIMIT", 0.5)
    refusing = f"{HOST}:{free_port()}"
    addresses = [*dead, refusing]
    with Overheard() as overheard:
        consumer = AIOKafkaConsumer(**connection(addresses, Security(), "kafka.security"))
        with pytest.raises(KafkaConnectionError) as error:
            await asyncio.wait_for(consumer.start(), DEADLINE)
        await consumer.stop()
    said = overheard.after(told(error.value))
    assert said.startswith("no broker can be reached; ")
    for address in dead:
        assert f'Unable connect to "{address}": no answer in time' in said
    assert f'Unable connect to "{refusing}": [Errno 111]' in said
    assert kafka_connect.away(addresses)
    assert not kafka_connect.away(dead), "another list"


@contextlib.asynccontextmanager
async def hanging_up(kafka: Kafka) -> AsyncIterator[str]:
    """The address of a proxy that passes one request and its answer, and then hangs up."""
    host, port = kafka.bootstrap.split(":")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers, requests = await asyncio.open_connection(host, int(port))
        for source, target in ((reader, requests), (answers, writer)):
            size = await source.readexactly(4)
            target.write(size + await source.readexactly(int.from_bytes(size)))
        await reader.read(1)
        requests.close()
        writer.close()

    async with await asyncio.start_server(serve, HOST, 0) as server:
        yield f"{HOST}:{server.sockets[0].getsockname()[1]}"


async def test_one_that_answers_without_metadata_is_not_said_to_be_silent(
    kafka: Kafka, dead: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the one that is silent is, though aiokafka asked for the other one when that became known."""
    monkeypatch.setattr(kafka_connect, "CONNECT_LIMIT", 0.5)
    monkeypatch.setattr("random.shuffle", lambda addresses: None)
    async with hanging_up(kafka) as answering:
        with Overheard() as overheard:
            consumer = AIOKafkaConsumer(**connection([dead[0], answering], Security(), "kafka.security"))
            with pytest.raises(KafkaConnectionError):
                await asyncio.wait_for(consumer.start(), DEADLINE)
            await consumer.stop()
    said = f'Unable connect to "{answering}": answered, but gave no metadata; {dead[0]}: no answer in time'
    assert overheard.said[-1] == said


async def test_check_names_each_address_too(dead: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka_connect, "CONNECT_LIMIT", 0.5)
    monkeypatch.setattr("pipeline.operating.connect.KAFKA_SECONDS", DEADLINE)
    (finding,) = [found async for found in connect(config_for("", bootstrap_servers=dead))]
    assert not finding.ok
    assert all(f'"{address}": no answer in time' in finding.text for address in dead)
    assert "firewall" in finding.text


async def test_a_broker_of_the_metadata_is_not_waited_for_either(
    dead: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `_get_conn` connects, which holds up all other connections of its client meanwhile."""
    monkeypatch.setattr(kafka_connect, "CONNECT_LIMIT", 0.2)
    kafka_connect.begin()
    port = int(dead[0].partition(":")[2])
    connecting = aiokafka.client.create_conn(HOST, port, on_close=lambda *_: None)
    with pytest.raises(TimeoutError, match=kafka_connect.NO_ANSWER):
        await asyncio.wait_for(connecting, DEADLINE)


async def test_a_client_that_is_given_up_leaves_nothing_behind(
    dead: list[str], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(kafka_connect, "CONNECT_LIMIT", NEVER)
    consumer = AIOKafkaConsumer(**connection(dead, Security(), "kafka.security"))
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(consumer.start(), 0.5)
    await consumer.stop()
    await asyncio.sleep(0)
    left = {getattr(task.get_coro(), "__qualname__", "") for task in asyncio.all_tasks()}
    assert not left & {"_connection", "AIOKafkaConnection.connect"}
    assert not kafka_connect._races
    assert not [record for record in caplog.records if record.levelno > logging.WARNING]


async def test_who_is_given_up_in_the_moment_in_which_it_connects_leaves_no_connection(
    kafka: Kafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As each address but one, where all are asked at once and answer alike."""
    made: list[AIOKafkaConnection] = []
    connect = AIOKafkaConnection.connect

    async def connect_and_give_up(connection: AIOKafkaConnection) -> None:
        await connect(connection)
        made.append(connection)
        connecting.cancel()

    monkeypatch.setattr(AIOKafkaConnection, "connect", connect_and_give_up)
    host, port = kafka.bootstrap.split(":")
    connecting = asyncio.ensure_future(kafka_connect.create_conn(host, int(port)))
    with pytest.raises(asyncio.CancelledError):
        await connecting
    assert [connection.connected() for connection in made] == [False]


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
@pytest.mark.parametrize("host", [HOST, "broker.example.invalid"])
def test_where_no_file_can_be_opened_it_says_so(loop: Callable[[], asyncio.AbstractEventLoop], host: str) -> None:
    """A name that cannot be looked up for that reason is just not known, as the system tells it."""
    kafka_connect.begin()

    async def connect() -> None:
        await asyncio.get_running_loop().run_in_executor(None, int)  # its thread is there
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        os.close(free := os.dup(0))
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, before[1]))
        try:
            with pytest.raises(OSError, match=f"too many open files: this process may have {free}, give it more"):
                await aiokafka.client.create_conn(host, 9092, on_close=lambda *_: None)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(connect())


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_connection_that_was_reset_says_so(loop: Callable[[], asyncio.AbstractEventLoop], kafka: Kafka) -> None:
    """To aiokafka's tasks, which would end of another error: nobody would ask for metadata again."""
    kafka_connect.begin()

    async def send() -> None:
        closed: list[Any] = []
        host, port = kafka.bootstrap.split(":")
        made = await aiokafka.client.create_conn(host, int(port), on_close=lambda *how: closed.append(how))
        made._writer.transport.abort()
        while True:
            await asyncio.sleep(0)
            await made.send(aiokafka.client.MetadataRequest([]))

    with asyncio.Runner(loop_factory=loop) as runner, pytest.raises(KafkaConnectionError):
        runner.run(send())


async def test_a_request_that_a_broker_does_not_know_breaks_no_connection(kafka: Kafka) -> None:
    """It would be tried for ever, where aiokafka gives up."""
    kafka_connect.begin()
    host, port = kafka.bootstrap.split(":")
    made = await aiokafka.client.create_conn(host, int(port), on_close=lambda *_: None)
    try:
        made._versions = {}
        with pytest.raises(IncompatibleBrokerVersion):
            made.send(aiokafka.client.MetadataRequest([]))
        assert made.connected()
    finally:
        made.close()


async def test_a_login_that_is_refused_slows_down_no_other(kafka: Kafka) -> None:
    """A sink with a wrong password on the pipeline's own brokers."""
    kafka_connect.begin()
    host, port = kafka.bootstrap.split(":")
    login = {"security_protocol": "SASL_PLAINTEXT", "sasl_mechanism": "PLAIN", "sasl_plain_username": "u"}
    for _ in range(3):
        with pytest.raises(KafkaError):
            await aiokafka.client.create_conn(
                host, int(port), on_close=lambda *_: None, sasl_plain_password="no", request_timeout_ms=2_000, **login
            )
    assert [times for times, _ in kafka_connect._failed.values()] == [3]
    (await aiokafka.client.create_conn(host, int(port), on_close=lambda *_: None)).close()
    assert [times for times, _ in kafka_connect._failed.values()] == [3], "that of the others is as it was"


async def test_an_address_that_refused_is_not_tried_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Or each client of a worker would do so, and say so, hundreds of times a second."""
    kafka_connect.begin()
    port = free_port()

    async def connect() -> None:
        await aiokafka.client.create_conn(HOST, port, on_close=lambda *_: None)

    monkeypatch.setattr(kafka_connect, "RECONNECT_LEAST", NEVER)
    monkeypatch.setattr(kafka_connect, "RECONNECT_MOST", NEVER)
    with pytest.raises(ConnectionRefusedError):
        await connect()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(connect(), 1.0)
    monkeypatch.setattr(kafka_connect, "RECONNECT_MOST", 0.0)
    with pytest.raises(ConnectionRefusedError):
        await connect()


def test_aiokafka_connects_as_it_did_when_this_was_written() -> None:
    """If this fails, read `AIOKafkaClient` anew: schemas/kafka_connect.py takes these two functions' place."""
    kafka_connect.begin()
    assert aiokafka.client.AIOKafkaClient.bootstrap is kafka_connect.bootstrap
    assert aiokafka.client.create_conn is kafka_connect.create_conn
    bootstrap = inspect.getsource(kafka_connect._bootstrap)
    assert "for host, port, _ in self.hosts:" in bootstrap
    assert bootstrap.count("await create_conn(\n                    host,\n                    port,\n") == 1
    assert "except (OSError, KafkaError, asyncio.TimeoutError) as err:" in bootstrap
    assert "await create_conn(" in inspect.getsource(aiokafka.client.AIOKafkaClient._get_conn)
    theirs, ours = (inspect.signature(each) for each in (aiokafka.conn.create_conn, aiokafka.conn.AIOKafkaConnection))
    assert theirs.parameters.keys() == ours.parameters.keys(), "what create_conn is given is given to the connection"
