"""`tailrace explain` on a real Kafka: kept, dropped, late, waiting and unknown traces; by the owner, and without it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiokafka import AIOKafkaProducer
from click.testing import CliRunner, Result

from pipeline.cli import cli
from pipeline.commands.explain import lines
from pipeline.config import Config
from pipeline.operating.explain import Explanation, vote_again
from pipeline.worker import Worker, running
from processors.sampling.compile import compile_policies
from schemas.decision import Checkpoint
from tests.pipeline.configs import MINIMAL, as_yaml
from tests.pipeline.kafka import DEADLINE
from tests.pipeline.stages import Stages, trace_id
from tests.processors.sampling.builders import TRACE_ID
from tests.processors.sampling.evidence import rows, span
from tests.services import Kafka, eventually
from tests.services.process import HOST, free_port

ERRORS = {"name": "errors", "type": "status_code", "status_code": {"status_codes": ["ERROR"]}}
SHOP = {"name": "is-shop", "type": "string_attribute", "string_attribute": {"key": "service.name", "values": ["shop"]}}
FAILED_SHOP = {"name": "failed-shop", "type": "and", "and": {"and_sub_policy": [SHOP, ERRORS]}}
OPERATIONS = {
    "name": "operations",
    "type": "dynamic",
    "shadow": True,
    "dynamic": {"field_list": ["root.service.name", "name"], "goal_sample_rate": 2},
}
TOKEN = "sixteen letters or more"
LATE = "fast"  # dropped, then it fails


class Explained(Stages):
    """Four traces: one kept, two dropped, one of them with a late error, one that waits."""

    SECTIONS = {
        "sampling": {"decision_wait": "1s", "policies": [FAILED_SHOP, OPERATIONS]},
        "telemetry": {"port": 0, "token": TOKEN, "live": True},
    }

    async def play(self, producer: AIOKafkaProducer) -> None:
        await self.produce(producer, "pay/1", "pay/2!", "fast/1")
        await self.produce(producer, "pay/3", "calm/1", partition=1)
        await eventually(lambda: self.decided("pay", "fast", "calm"), DEADLINE, "three are decided")
        await self.produce(producer, "fast/2!")  # late: it follows the verdict
        await self.arrived("fast/2!")

    async def arrived(self, name: str) -> None:
        async def there() -> bool:
            return name in await self.names(self.topics.spans)

        await eventually(there, DEADLINE, f"{name} is in the internal topic")

    async def decided(self, *names: str) -> bool:
        return set(names) <= set(await self.verdicts())

    def call(self, name: str, *words: str) -> Result:
        base = ["explain", "--config", str(self.file), trace_id(name).hex(), *words]
        return CliRunner().invoke(cli, base, env={"TAILRACE_TOKEN": TOKEN})

    async def explain(self, name: str, *words: str) -> dict[str, Any]:
        result = await asyncio.to_thread(self.call, name, "--json", *words)
        assert result.exit_code == 0, result.output
        found: dict[str, Any] = json.loads(result.stdout)
        return found


@pytest.fixture
async def stages(kafka: Kafka, tmp_path: Path) -> AsyncIterator[Explained]:
    found = Explained(kafka.bootstrap, tmp_path)
    await found.create()
    yield found
    found.stop()


async def test_explain(stages: Explained) -> None:
    async with stages.producer() as producer:
        async with running(stages.config, ["ingest", "sample"]) as worker:
            await stages.play(producer)
            by_owner = await asked_of_the_owner(stages, worker)
        kept = await asked_of_kafka(stages)
        kept["votes"][1]["key"] = []
        assert kept == by_owner | {"answered_by": "kafka"}
        await nobody_has_decided(stages, producer)


async def asked_of_the_owner(stages: Explained, worker: Worker) -> dict[str, Any]:
    """One address that nobody has, then the owner's: it knows a trace that a drop policy never saw kept."""
    nobody, owner = (f"http://{HOST}:{port}" for port in (free_port(), worker.server.port))
    found = await stages.explain("pay", "--worker", nobody, "--worker", owner)
    assert found["answered_by"] == owner
    assert found["votes"][1]["key"] == [], "values of attributes, which a page shows with telemetry.live.payloads alone"
    shown = await asyncio.to_thread(stages.call, "pay", "--worker", owner)
    assert "; key withheld, kept at 50 %" in shown.output
    wrong = await asyncio.to_thread(stages.call, "pay", "--worker", owner, "--token", "another token, wrong", "--json")
    assert json.loads(wrong.stdout)["answered_by"] == "kafka"
    return found


async def asked_of_kafka(stages: Explained) -> dict[str, Any]:
    """Workers are gone."""
    kept = await stages.explain("pay")
    assert (kept["state"], kept["agrees"], kept["evidence"]["spans"]) == ("kept", True, 3)
    assert kept["decision"]["policy"] == "failed-shop"
    assert kept["decision"]["policies_version"] == kept["policies_version"]
    assert kept["evidence"]["trigger"] == "decision_wait"
    assert kept["evidence"]["deadline"] == kept["evidence"]["first"] + 1_000 <= kept["decision"]["stream_time"]
    assert {each["partition"] for each in kept["sources"]} == {0, 1}
    vote, by_key = kept["votes"]
    assert by_key["key"] == [["root.service.name", ["shop"]], ["name", ["pay/1", "pay/2!", "pay/3"]]]
    assert by_key["key_threshold"] == 1 << 55  # no interval is over yet
    shop, errors = vote["parts"]
    assert (vote["matched"], shop["matched"], shop["rows"], errors["rows"]) == (True, True, 3, 1)
    assert errors["evidence"] == [[b"pay/2!".rjust(8, b"\x01").hex(), "pay/2!"]]

    dropped = await stages.explain("calm")
    assert (dropped["state"], dropped["agrees"], dropped["votes"][0]["matched"]) == ("dropped", True, False)
    assert dropped["votes"][0]["parts"][0]["matched"]

    before = stages.file.read_text()
    stages.file.write_text(
        as_yaml(stages.settings | {"sampling": stages.settings["sampling"] | {"decision_wait": "7s"}})
    )
    assert await stages.explain("pay") == kept  # it was decided under another
    stages.file.write_text(before)
    unsaid = kept["decision"] | {"waits": None}  # as records of before have it
    said = "\n".join(lines(kept | {"agrees": False, "decision": unsaid}))
    assert "a rate was spent when it was decided, decision_wait was another, or records are gone" in said

    late = await stages.explain(LATE)
    assert (late["state"], late["evidence"]["spans"], late["agrees"]) == ("dropped", 1, True)
    found = late["later"]
    assert [found[name] for name in ("spans", "errors", "logs")] == [1, 1, 0]
    assert late["decision"]["appended"] < found["first"]
    assert (found["sources"], late["later_until"]) == ([late["sources"][0] | {"offset": 1}], None)
    said = (await asyncio.to_thread(stages.call, LATE)).output
    assert "! 1 more span (ERROR) came " in said
    assert f" s after the verdict, at {stages.raw}/0@1; not evidence: see late_evidence" in said
    assert dropped["later"] is None
    assert late["decision"]["stream_time"] < dropped["decision"]["stream_time"] + 1_000
    shown = await asyncio.to_thread(stages.call, "pay")
    assert "kept by failed-shop" in shown.output
    assert "; key root.service.name: shop, name: pay/1 | pay/2! | pay/3, kept at 50 %" in shown.output
    assert "    ● errors [status_code] status_codes: [ERROR]: keeps; met by span " in shown.output
    return kept


async def nobody_has_decided(stages: Explained, producer: AIOKafkaProducer) -> None:
    """A trace behind the tail, one that never was, and one that ingest has not read."""
    async with running(stages.config, ["ingest"]):
        await stages.produce(producer, "wait/1!")
        await stages.arrived("wait/1!")
    waiting = await stages.explain("wait")
    assert (waiting["state"], waiting["decision"], waiting["votes"][0]["matched"]) == ("undecided", None, True)
    unknown = await asyncio.to_thread(stages.call, "nobody")
    assert (unknown.exit_code, "no verdict in the log of decisions" in unknown.output) == (1, True)
    assert ("`tailrace dlq list`" in unknown.output, "unread" in unknown.output) == (True, False)
    await stages.produce(producer, "unread/1", "unread/2")
    unread = await asyncio.to_thread(stages.call, "unread")
    group = stages.topics.group("ingest")
    assert f"! ingest has 1 unread record (group {group}): it may not have come this far" in unread.output


async def test_the_other_tasks_of_a_worker_have_their_turn_after_every_batch_of_a_vote() -> None:
    """A limit of time ends it then."""
    config = Config.model_validate(MINIMAL | {"sampling": {"policies": [FAILED_SHOP, SHOP, OPERATIONS]}})
    plan = compile_policies(config.sampling.policies)
    came = [rows(span(number)) for number in range(20)]
    asked = 1 + 1 + 3 + 1 + 2  # deadline, evidence, `and` and its parts, the attribute, the rate and its key
    turns = 0

    async def other() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(other())
    found, ended = (Explanation(TRACE_ID.hex(), 0, plan.version) for _ in range(2))
    await vote_again(config, plan, found, came, Checkpoint())
    assert (len(found.votes), turns >= asked * len(came)) == (3, True)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            await vote_again(config, plan, ended, came, Checkpoint())
    assert (ended.trace, ended.votes) == (None, [])
    task.cancel()


@pytest.mark.parametrize("wrong", ["xyz", "0", "1" * 33])
def test_what_is_no_trace_id(tmp_path: Path, wrong: str) -> None:
    config = tmp_path / "tailrace.yaml"
    config.write_text(as_yaml(MINIMAL))
    result = CliRunner().invoke(cli, ["explain", "--config", str(config), wrong])
    assert (result.exit_code, "is not a trace id" in result.output) == (2, True)
