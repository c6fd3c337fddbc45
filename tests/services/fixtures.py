"""Session-wide servers for pytest, each started when the first test asks for it.

pyproject.toml loads this module (`-p`). What is missing is built; what cannot be built or started fails the test,
nothing is skipped. A test that kills or pauses a server takes one of its own (`with Kafka() as kafka`), not these.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from tests.services.chromium import Chromium
from tests.services.servers import Elasticsearch, Jaeger, Kafka, Prometheus


def pytest_configure() -> None:
    """SIGTERM and SIGHUP end a run as Ctrl-C does: fixtures are closed, servers and their data go."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_DFL:
            continue  # as under nohup
        signal.signal(number, signal.default_int_handler)


@pytest.fixture(scope="session")
def kafka() -> Iterator[Kafka]:
    """A Kafka broker; topics are the test's to create and to name apart."""
    with Kafka() as server:
        yield server


@pytest.fixture(scope="session")
def kafka_3_9() -> Iterator[Kafka]:
    """A broker of the oldest version that is promised to work."""
    with Kafka(recipe="kafka-3.9") as server:
        yield server


@pytest.fixture(params=["kafka", "kafka_3_9"])
def every_kafka(request: pytest.FixtureRequest) -> Kafka:
    """One broker after the other: a test that takes it shows that something works on each version.

    Not of the session's scope: pytest would sort the tests by it.
    """
    server: Kafka = request.getfixturevalue(request.param)
    return server


@pytest.fixture(scope="session")
def elasticsearch() -> Iterator[Elasticsearch]:
    """An Elasticsearch node."""
    with Elasticsearch() as server:
        yield server


@pytest.fixture(scope="session")
def jaeger() -> Iterator[Jaeger]:
    """A Jaeger with its traces in memory."""
    with Jaeger() as server:
        yield server


@pytest.fixture(scope="session")
def prometheus() -> Iterator[Prometheus]:
    """A Prometheus that accepts remote writes."""
    with Prometheus() as server:
        yield server


@pytest.fixture(scope="session")
def chromium() -> Iterator[Chromium]:
    """A browser without a window."""
    with Chromium() as browser:
        yield browser
