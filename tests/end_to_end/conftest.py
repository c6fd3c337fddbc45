"""The destinations, shared by all pipelines of a session: each writes under names of its own."""

from __future__ import annotations

import pytest

from tests.end_to_end.harness import Destinations
from tests.services import Elasticsearch, Jaeger, Prometheus


@pytest.fixture(scope="session")
def destinations(jaeger: Jaeger, elasticsearch: Elasticsearch, prometheus: Prometheus) -> Destinations:
    """Jaeger, Elasticsearch and Prometheus."""
    return Destinations(jaeger, elasticsearch, prometheus)
