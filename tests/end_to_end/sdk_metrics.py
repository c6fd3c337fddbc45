"""Programs that measure with the official OpenTelemetry SDK: every kind of instrument, both temporalities.

What an instrument was given is also in `truth`, by metric name and job as Prometheus has them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from random import Random

from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.sdk import metrics as sdk
from opentelemetry.sdk.metrics.export import AggregationTemporality, InMemoryMetricReader
from opentelemetry.sdk.metrics.view import ExponentialBucketHistogramAggregation, View
from opentelemetry.sdk.resources import Resource

ROUTES = ("/cart", "/pay")
INSTRUMENTS = (
    sdk.Counter,
    sdk.UpDownCounter,
    sdk.Histogram,
    sdk.ObservableCounter,
    sdk.ObservableUpDownCounter,
)
Truth = Counter[tuple[str, str]]


class Program:
    """One process of a service. `restart` begins it anew: its own counts are gone, what was counted is not."""

    def __init__(self, job: str, instance: str, temporality: AggregationTemporality, truth: Truth) -> None:
        self.job, self.instance, self._temporality, self.truth = job, instance, temporality, truth
        self.random = Random(f"{job}/{instance}")
        self.load = 0.0
        self.open = 0
        self.restart()

    def restart(self) -> None:
        """A new SDK with the same resource; its connections are closed."""
        self.truth["connections", self.job] -= self.open
        self.truth["pool_size", self.job] -= self.open
        self.open, self.cpu = 0, 0
        resource = {"service.name": self.job, "service.instance.id": self.instance, "service.version": "1.0"}
        self._reader = InMemoryMetricReader(dict.fromkeys(INSTRUMENTS, self._temporality))
        exponential = View(
            instrument_name="http.server.response.size", aggregation=ExponentialBucketHistogramAggregation()
        )
        self._provider = sdk.MeterProvider([self._reader], Resource(resource), views=[exponential])
        meter = self._provider.get_meter("shop", "2.1")
        self.orders = meter.create_counter("shop.orders", unit="{order}")
        self.connections = meter.create_up_down_counter("connections")
        self.duration = meter.create_histogram(
            "http.server.request.duration", unit="s", explicit_bucket_boundaries_advisory=[1, 2.5, 5]
        )
        self.size = meter.create_histogram("http.server.response.size", unit="By")
        self.degrees = meter.create_gauge("cpu.temperature", unit="Cel")
        meter.create_observable_gauge("cpu.load", [self._observe_load], unit="1")
        meter.create_observable_counter("cpu.time", [self._observe_cpu], unit="s")
        meter.create_observable_up_down_counter("pool.size", [self._observe_open])

    def work(self) -> None:
        """Some requests."""
        job, truth = self.job, self.truth
        for route in ROUTES:
            number = self.random.randrange(1, 9)
            self.orders.add(number, {"http.route": route})
            truth["shop_orders_total", job] += number
            seconds, size = self.random.randrange(1, 64) / 8, self.random.randrange(0, 5_000)
            self.duration.record(seconds, {"http.route": route})
            self.size.record(size, {"http.route": route})
            truth["http_server_request_duration_seconds_count", job] += 1
            truth["http_server_request_duration_seconds_sum", job] += seconds  # type: ignore[assignment]
            truth["http_server_response_size_bytes", job] += size
            truth["at most 2.5 s", job] += seconds <= 2.5
        change = self.random.randrange(-self.open, 6)
        self.connections.add(change)
        self.open += change
        truth["connections", job] += change
        truth["pool_size", job] += change
        self.cpu += 2
        truth["cpu_time_seconds_total", job] += 2
        self.load = self.random.random()
        self.degrees.set(40 + self.load)

    def export(self) -> bytes:
        """What the SDK's exporter would send now."""
        message: bytes = encode_metrics(self._reader.get_metrics_data()).SerializeToString()
        return message

    def _observe_load(self, _: CallbackOptions) -> Iterable[Observation]:
        yield Observation(self.load)

    def _observe_cpu(self, _: CallbackOptions) -> Iterable[Observation]:
        yield Observation(self.cpu)

    def _observe_open(self, _: CallbackOptions) -> Iterable[Observation]:
        yield Observation(self.open)
