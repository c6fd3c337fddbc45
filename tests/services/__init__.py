"""Real servers as plain processes on 127.0.0.1: install, start, wait, stop."""

from tests.services.process import Server, ServerFailed, free_port
from tests.services.servers import Collector, Elasticsearch, Jaeger, Kafka, Prometheus, start_collector
from tests.services.waiting import eventually, wait_for

__all__ = [
    "Collector",
    "Elasticsearch",
    "Jaeger",
    "Kafka",
    "Prometheus",
    "Server",
    "ServerFailed",
    "eventually",
    "free_port",
    "start_collector",
    "wait_for",
]
