"""What every Kafka client of the pipeline is given so that it reaches the brokers."""

from __future__ import annotations

from typing import Any

from pipeline.config import Kafka
from schemas.kafka_client import connection


def client_kwargs(kafka: Kafka) -> dict[str, Any]:
    """What `schemas.kafka_client.connection` says of the section `kafka`."""
    return connection(kafka.bootstrap_servers, kafka.security, "kafka.security")
