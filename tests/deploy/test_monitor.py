"""Jaeger's Monitor tab reads our span metrics: the shipped Jaeger and Prometheus configurations, on real servers."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import AsyncIterator
from urllib.parse import urlencode

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from pipeline.config import SpanMetrics
from processors.span_metrics import SpanMetricNames, span_metric_names
from tests.repository import ROOT, read_yaml
from tests.services import Collector, Prometheus, eventually
from tests.services.process import HOST, answers, free_port

DEADLINE_SECONDS = 60.0
QUERY = {
    "service": "checkout", "spanKind": "server", "groupByOperation": "true",
    "lookback": 60_000, "step": 1_000, "ratePer": 5_000,
}  # fmt: skip
LABELS = ("checkout", "POST /orders", "SPAN_KIND_SERVER", "STATUS_CODE_ERROR")


class ShippedJaeger(Collector):
    """Jaeger as docker-compose.yml runs it, but for ports and addresses."""

    name = "jaeger"

    def __init__(self, prometheus_url: str) -> None:
        config = read_yaml("deploy/jaeger/config.yaml")
        del config["receivers"]
        extensions = config["extensions"]
        extensions["jaeger_storage"]["metric_backends"]["prometheus"]["prometheus"]["endpoint"] = prometheus_url
        query = extensions["jaeger_query"]
        query["ui"]["config_file"] = str(ROOT / "deploy" / "jaeger" / "ui.json")
        query["http"]["endpoint"], query["grpc"]["endpoint"] = (f"{HOST}:{free_port()}" for _ in range(2))
        self.query_url = f"http://{query['http']['endpoint']}"
        config["service"]["extensions"].remove("healthcheckv2")
        super().__init__(config)

    def is_ready(self) -> bool:
        """Whether queries are served as well."""
        return super().is_ready() and answers(f"{self.query_url}/api/v3/services")


@pytest.fixture
def names() -> SpanMetricNames:
    """What Tailrace calls its metrics if nobody says otherwise."""
    defaults = SpanMetrics()
    return span_metric_names(defaults.namespace, defaults.dimensions, defaults.buckets_ms)


@pytest.fixture
async def exposition(names: SpanMetricNames) -> AsyncIterator[str]:
    """host:port of a page with those metrics, a few more failed orders of 30 ms each time it is read."""
    registry = CollectorRegistry()
    calls = Counter(names.calls, "Calls.", names.calls_shape.label_names, registry=registry)
    durations = Histogram(
        names.duration, "ms.", names.duration_shape.label_names, buckets=names.duration_shape.bounds, registry=registry
    )

    async def page(_: web.Request) -> web.Response:
        for _order in range(10):
            calls.labels(*LABELS).inc()
            durations.labels(*LABELS).observe(30)
        return web.Response(body=generate_latest(registry), headers={"Content-Type": "text/plain; version=0.0.4"})

    app = web.Application()
    app.router.add_get("/metrics", page)
    async with TestServer(app) as server:
        yield f"{server.host}:{server.port}"


async def test_the_monitor_tab_finds_the_span_metrics(exposition: str) -> None:
    shipped = read_yaml("deploy/prometheus/prometheus.yml")
    shipped["global"]["scrape_interval"] = "1s"
    shipped["scrape_configs"] = [{"job_name": "spans", "static_configs": [{"targets": [exposition]}]}]
    with Prometheus(shipped) as prometheus, ShippedJaeger(prometheus.url) as jaeger:

        async def point(metric: str, **more: float) -> float:
            async def drawn() -> float | None:
                return await asyncio.to_thread(_newest_value, f"{jaeger.query_url}/api/metrics/{metric}?{query}")

            query = urlencode(QUERY | more)
            value = await eventually(drawn, DEADLINE_SECONDS, f"a point of {metric}")
            assert value is not None
            return value

        assert await point("calls") > 0
        assert await point("errors") == pytest.approx(1.0)
        assert 10 < await point("latencies", quantile=0.95) < 50, "30 ms lies in the bucket from 10 to 50 ms"


def _newest_value(url: str) -> float | None:
    """The last number of the first series in Jaeger's answer; None while there is none."""
    with urllib.request.urlopen(url) as answer:
        families = json.load(answer).get("metrics", [])
    for family in families:
        labels = {label["name"]: label["value"] for label in family["labels"]}
        assert labels == {"operation": LABELS[1], "service_name": LABELS[0]}
        values = [point["gaugeValue"]["doubleValue"] for point in family["metricPoints"]]
        numbers = [value for value in values if isinstance(value, int | float) and value > 0]
        if numbers:
            return float(numbers[-1])
    return None
