"""Destinations. `create` makes the one that a key of the `sinks` map names.

Importing this package imports no client library: `tailrace check` needs the settings alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sinks.contract import Destination
from sinks.settings import Sink


def _jaeger(settings: Sink) -> Destination[Any]:
    from sinks.jaeger import Jaeger

    return Jaeger(settings)


def _elasticsearch(settings: Sink) -> Destination[Any]:
    from sinks.elasticsearch import Elasticsearch

    return Elasticsearch(settings)


def _prometheus(settings: Sink) -> Destination[Any]:
    from sinks.prometheus import Prometheus

    return Prometheus(settings)


KINDS: dict[str, Callable[[Sink], Destination[Any]]] = {
    "jaeger": _jaeger,
    "elasticsearch": _elasticsearch,
    "prometheus": _prometheus,
}


def create(name: str, settings: Sink) -> Destination[Any]:
    """The destination of a key such as `jaeger` or `elasticsearch/audit`. Raises KeyError for another kind."""
    return KINDS[name.partition("/")[0]](settings)
