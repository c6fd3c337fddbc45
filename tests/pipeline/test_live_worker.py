"""Roles on a real Kafka feed the page, and what waits for them goes down to nothing."""

from __future__ import annotations

from typing import Any

from aiohttp import ClientSession
from prometheus_client import generate_latest

from pipeline.config import Config
from pipeline.telemetry import REGISTRY, tell
from pipeline.worker import running
from tests.pipeline.kafka import DEADLINE
from tests.pipeline.stages import Stages, trace_id
from tests.services import eventually

ROLES = ("ingest", "sample", "aggregate")


async def test_roles_feed_the_page_and_nothing_stays_unread(stages: Stages) -> None:
    config = Config.model_validate(
        {**stages.settings, "metrics": {"interval": "1s"}, "telemetry": {"port": 0, "live": True}}
    )
    async with running(config, ROLES) as worker, ClientSession() as client, stages.producer() as producer:

        async def view() -> dict[str, Any]:
            async with client.get(f"http://127.0.0.1:{worker.server.port}/live/view") as answer:
                found: dict[str, Any] = await answer.json()
                return found

        async def read() -> bool:
            """A marker of a transaction follows the last record of every internal topic: it must not count for ever."""
            roles = {role["name"]: role for role in (await view())["roles"]}
            mine = [roles.get(name, {"ready": False}) for name in ROLES]
            return all(role["ready"] and role["read"] and role["unread"] == 0 for role in mine)

        async def shown() -> bool:
            found = await view()
            return bool(found["traces"] and found["limits"])

        await stages.produce(producer, "wrong/1!", "wrong/2", "fine/1")
        await eventually(shown, DEADLINE, "the kept trace and the limits are on the page")
        found = await view()
        assert [trace["trace_id"] for trace in found["traces"]] == [trace_id("wrong/1").hex()]
        assert (found["traces"][0]["spans"], found["traces"][0]["policy"]) == (2, "errors")
        assert {limit["metric"] for limit in found["limits"]} == {
            "traces_span_metrics_calls_total", "traces_span_metrics_duration_milliseconds"
        }  # fmt: skip
        await eventually(read, DEADLINE, "no role has anything unread")


async def test_a_worker_that_tells_nothing_counts_nothing(stages: Stages) -> None:
    telemetry = {"port": 0, "live": True, "metrics_level": "none"}
    config = Config.model_validate({**stages.settings, "telemetry": telemetry})
    before = generate_latest(REGISTRY)
    try:
        async with running(config, ["ingest"]) as worker, ClientSession() as client, stages.producer() as producer:
            await stages.produce(producer, "fine/1!")
            url = f"http://127.0.0.1:{worker.server.port}"

            async def ready() -> bool:
                async with client.get(f"{url}/readyz") as answer:
                    return answer.status == 200

            await eventually(ready, DEADLINE, "ingest holds its partitions")
            async with client.get(f"{url}/live") as answer:
                assert answer.status == 404
    finally:
        tell(True)
    assert _ours(generate_latest(REGISTRY)) == _ours(before)


def _ours(page: bytes) -> list[bytes]:
    return [line for line in page.splitlines() if line.startswith(b"tailrace_")]
