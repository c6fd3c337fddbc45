"""Destinations. `create` makes the one that a key of the `sinks` map names.

Importing this package imports no client library: `tailrace check` needs the settings alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sinks.contract import Destination, Signal
from sinks.settings import Sink, sink_kind


def signals(name: str, settings: Sink) -> list[Signal]:
    """What the sink of a key such as `jaeger` or `otlp/tempo` reads. Raises KeyError for another kind."""
    words: dict[str, list[Signal]] = {
        "jaeger": ["spans"],
        "otlp": ["spans" if signal == "traces" else "logs" for signal in settings.signals],
        "elasticsearch": ["logs"],
        "prometheus": ["samples"],
        "kafka": ["spans"],
    }
    return words[sink_kind(name)]


def _otlp(name: str, settings: Sink, consistent: bool) -> Destination[Any]:
    from sinks.otlp import Otlp

    return Otlp(settings, signals(name, settings), consistent)


def _elasticsearch(name: str, settings: Sink, consistent: bool) -> Destination[Any]:
    from sinks.elasticsearch import Elasticsearch

    return Elasticsearch(settings)


def _prometheus(name: str, settings: Sink, consistent: bool) -> Destination[Any]:
    from sinks.prometheus import Prometheus

    return Prometheus(settings)


def _kafka(name: str, settings: Sink, consistent: bool) -> Destination[Any]:
    from sinks.kafka_topic import KafkaTopic

    return KafkaTopic(settings, f"sinks.{name}.security", consistent)


_CREATE: dict[str, Callable[[str, Sink, bool], Destination[Any]]] = {
    "jaeger": _otlp,
    "otlp": _otlp,
    "elasticsearch": _elasticsearch,
    "prometheus": _prometheus,
    "kafka": _kafka,
}


def create(name: str, settings: Sink, consistent: bool = True) -> Destination[Any]:
    """The destination of a key such as `jaeger` or `elasticsearch/audit`. Raises KeyError for another kind.

    `consistent`: whether spans may say their threshold in the tracestate (sinks.otlp_rows).
    """
    return _CREATE[sink_kind(name)](name, settings, consistent)
