"""What operators see of a pipeline that has run: every panel of the dashboards, and counters that began at zero."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import aiohttp
from prometheus_client.samples import Sample

from pipeline.config import Config
from pipeline.roles import diagram
from pipeline.telemetry import METRICS
from pipeline.watching import zeros
from schemas.decision import DecisionRecord
from tests.deploy.dashboards import queries
from tests.end_to_end.harness import Pipeline
from tests.services import Prometheus, eventually

SOON_SECONDS = 40.0
# Labels that only data can tell: a metric's name, the partitions that a worker gets, a destination's answers.
LATER = {
    "tailrace_tail_reads_total",
    "tailrace_overflow_points_total",
    "tailrace_label_overflow_points_total",
    "tailrace_sink_retries_total",
}


async def asked(http: aiohttp.ClientSession, prometheus: Prometheus, query: str) -> list[dict[str, Any]]:
    """The series of an instant query."""
    async with http.get(f"{prometheus.url}/api/v1/query", params={"query": query}) as response:
        answer = await response.json(content_type=None)
    assert answer["status"] == "success", answer
    result: list[dict[str, Any]] = answer["data"]["result"]
    return result


async def empty_panels(prometheus: Prometheus, job: str, namespace: str) -> list[str]:
    """Every query of the dashboards that gives no number, as Grafana would send it: those of one installation."""
    empty = []
    async with aiohttp.ClientSession() as http:
        for title, query in queries(job=job, namespace=namespace):
            found = [float(series["value"][1]) for series in await asked(http, prometheus, query)]
            if not any(math.isfinite(value) for value in found):
                empty.append(f"{title}: {query}: {found}")
    return empty


def late_counters(config: Config, samples: Iterable[Sample]) -> set[str]:
    """Counters of a worker with all roles that were not there from the start, although they could have been."""
    counters = {metric.name for metric in METRICS if metric.kind == "counter" and metric.labels} - LATER
    roles = [role.name for role in diagram(config)]
    begun = {(name, frozenset(labels.items())) for name, labels in zeros.zeros(config, roles)}
    found = {(sample.name, frozenset(sample.labels.items())) for sample in samples if sample.name in counters}
    return {f"{name} {dict(labels)}" for name, labels in found - begun}


async def policies(pipeline: Pipeline) -> dict[int, set[str]]:
    """What the log of decisions says of each trace, "" for dropped."""
    found: dict[int, set[str]] = {}
    for record in await pipeline.records([pipeline.topics.decisions]):
        decisions = DecisionRecord.decode(record.value)
        for key, verdict in zip(decisions.keys, decisions.verdicts, strict=True):
            found.setdefault(key, set()).add(verdict.policy)
    return found


async def decided(pipeline: Pipeline, count: int, known: set[int]) -> set[int]:
    """The traces with a verdict, once there are `count` more than the known ones."""

    async def more() -> set[int]:
        found = set(await policies(pipeline))
        return found if len(found - known) >= count else set()

    return await eventually(more, SOON_SECONDS, f"{count} more traces are decided")
