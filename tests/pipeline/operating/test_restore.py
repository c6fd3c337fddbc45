"""`tailrace restore` on a real Kafka: a dropped trace comes back once, and each reason why one does not."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiohttp import ClientSession
from aiokafka import AIOKafkaProducer
from opentelemetry.proto.logs.v1.logs_pb2 import SEVERITY_NUMBER_ERROR, LogsData

from pipeline import telemetry
from pipeline.operating.explain import Explanation
from pipeline.operating.restore import BURST_SECONDS, Answer, Restores
from pipeline.sample import PartitionPair
from pipeline.worker import Worker, explainer, restorer, running
from processors.sampling import restore
from processors.sampling.restore import LateError, Restoration
from schemas.decision import RESTORED, DecisionRecord
from schemas.errors import Unavailable
from schemas.ids import trace_key
from tests.pipeline.configs import config_for
from tests.pipeline.kafka import DEADLINE
from tests.pipeline.operating.restoring import TOKEN, Restoring
from tests.pipeline.stages import holds, log_of, trace_id
from tests.services import Kafka, eventually
from tests.services.process import HOST, free_port
from tests.sinks import building


@pytest.fixture
async def stages(kafka: Kafka, tmp_path: Path) -> AsyncIterator[Restoring]:
    found = Restoring(kafka.bootstrap, tmp_path, partitions=1)
    await found.create(raw=1)
    yield found
    found.stop()


async def test_a_partition_that_was_let_go_of_restores_nothing() -> None:
    """Its lease may have been looked up before, and nobody would commit for it."""
    restores = Restores(config_for("nowhere:1"), 0, cast(Any, None), asyncio.Lock())
    await restores.close()
    async with asyncio.timeout(DEADLINE):
        with pytest.raises(Unavailable, match="partition 0 was let go of meanwhile"):
            await restores.ask(1, "why")


@pytest.mark.parametrize("found", [None, "decided"])
async def test_partitions_that_move_while_logs_are_read_are_left_to_others(
    found: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    leases = {0: object.__new__(PartitionPair)}

    @contextlib.asynccontextmanager
    async def side_by_side(*_: object) -> AsyncIterator[list[Any]]:
        leases.clear()
        yield [SimpleNamespace(index=0, found=found)]

    monkeypatch.setattr("pipeline.worker.side_by_side", side_by_side)
    monkeypatch.setattr("pipeline.worker.places", lambda *_: range(2))
    services: Any = [SimpleNamespace(role="sample", lease=leases.get)]
    restored = restorer(lambda: config_for("nowhere:1"), services)
    assert await restored(trace_id("any"), "why", 1e9) is None


async def test_explanations_do_not_wait_for_a_restore(monkeypatch: pytest.MonkeyPatch) -> None:
    """They have a limit of time, what reads the logs of all partitions for a restore has none."""
    leases = {0: object.__new__(PartitionPair)}
    services: Any = [SimpleNamespace(role="sample", lease=leases.get)]
    explained = explainer(lambda: config_for("nowhere:1"), services)
    restored = restorer(lambda: config_for("nowhere:1"), services)
    found: list[dict[str, Any] | None] = []

    @contextlib.asynccontextmanager
    async def side_by_side(*_: object) -> AsyncIterator[list[Any]]:
        async with asyncio.timeout(DEADLINE):
            found.append(await explained(trace_id("any")))
        leases.clear()
        yield []

    async def explain(*_: object) -> Explanation:
        return Explanation("any", 0, "version")

    monkeypatch.setattr("pipeline.worker.side_by_side", side_by_side)
    monkeypatch.setattr("pipeline.worker.places", lambda *_: range(2))
    monkeypatch.setattr("pipeline.operating.explain.explain", explain)
    assert await restored(trace_id("any"), "why", 1e9) is None
    assert [each and each["trace_id"] for each in found] == ["any"]


async def test_restore(stages: Restoring) -> None:
    async with stages.producer() as producer:
        async with running(stages.config, ["ingest", "sample"]) as worker:
            await holds(worker, "ingest", "sample")
            url = f"http://{HOST}:{worker.server.port}"
            await dropped(stages, producer)
            await kafka_does_not_answer(stages, worker, url)
            await it_comes_back_once(stages, producer, url)
            await nobody_else_may_ask(url)
            await its_spans_are_gone(stages, producer, url)
        nobody = f"http://{HOST}:{free_port()}"
        result = await asyncio.to_thread(stages.call, "restore", "calm", nobody)
        assert (result.exit_code, "nobody who answered owns the trace's partition" in result.output) == (1, True)


async def dropped(stages: Restoring, producer: AIOKafkaProducer) -> None:
    await stages.produce(producer, "calm/1", "calm/2", "other/1", "wrong/1!")
    await producer.send_and_wait(f"{stages.raw}.logs", log_of("calm", "quiet"))
    await stages.decided("calm", "other", "wrong")
    await stages.passed("calm/1")


async def kafka_does_not_answer(stages: Restoring, worker: Worker, url: str) -> None:
    """Where a restore reads, with connections of its own, nobody listens: it is told, counted, and changes nothing."""
    (lease,) = (service.lease(0) for service in worker.services if service.role == "sample")
    assert isinstance(lease, PartitionPair)
    nowhere = stages.config.kafka.model_copy(update={"bootstrap_servers": [f"{HOST}:{free_port()}"]})
    failed = _restores("failed", "request")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(lease.restores, "_config", stages.config.model_copy(update={"kafka": nowhere}))
        result = await asyncio.to_thread(stages.call, "restore", "calm", url)
    assert result.exit_code == 1
    assert f"{url}: HTTP 503" in result.output
    assert _restores("failed", "request") == failed + 1
    assert (await stages.verdicts())["calm"] == [""]


async def it_comes_back_once(stages: Restoring, producer: AIOKafkaProducer, url: str) -> None:
    assert await stages.restore("never", url) == (1, answer("unknown", url))
    assert await stages.restore("calm", url, "--max-read-bytes", "1") == (1, answer("too_far", url))
    code, told = await stages.restore("calm", url)
    assert (code, told["outcome"], told["spans"], told["partial"]) == (0, "restored", 2, False)
    assert told["why"] == "by ada: incident 4711"
    assert await stages.restore("calm", url) == (0, answer("kept", url, why="by ada: incident 4711"))
    assert await stages.restore("wrong", url) == (0, answer("kept", url, why="kept by errors"))
    await stages.produce(producer, "calm/3")
    await stages.kept("wrong/1!", "calm/1", "calm/2", "calm/3")

    async def followed() -> bool:
        return await stages.kept_logs() == {"quiet": (True, RESTORED)}

    await eventually(followed, DEADLINE, "its log follows, once")
    assert await stages.verdicts() == {"calm": ["", RESTORED], "other": [""], "wrong": ["errors"]}
    shown = await asyncio.to_thread(stages.call, "explain", "calm", url)
    assert "kept: dropped first, restored since" in shown.output
    assert ": by ada: incident 4711\n" in shown.output


async def nobody_else_may_ask(url: str) -> None:
    """Without the token; and from a page of another origin, which can send no JSON unasked."""
    path = f"{url}/live/restore/{trace_id('other').hex()}"
    headers = {"Authorization": f"Bearer {TOKEN}"}
    async with ClientSession() as session:
        async with session.post(path, json={"why": ""}) as answered:
            assert answered.status == 401
        async with session.post(path, data=b'{"why": ""}', headers=headers) as answered:
            assert answered.status == 415
        async with session.post(path, json=["why"], headers=headers) as answered:
            assert answered.status == 400


class KeyedRestoring(Restoring):
    """No ingest: two raw partitions, and only producers know which of them a trace is in."""

    SECTIONS = {**Restoring.SECTIONS, "regroup": "never"}


async def test_restore_from_keyed_topics(kafka: Kafka, tmp_path: Path) -> None:
    """The raw topics are read again, from the partition that decided the trace."""
    stages = KeyedRestoring(kafka.bootstrap, tmp_path)
    await stages.create()
    async with stages.producer() as producer, running(stages.config, ["sample"]) as worker:
        await holds(worker, "sample")
        url = f"http://{HOST}:{worker.server.port}"
        await stages.produce(producer, "calm/1", "calm/2", partition=1)
        await stages.decided("calm")
        assert await stages.restore("never", url) == (1, answer("unknown", url))
        code, told = await stages.restore("calm", url)
        assert (code, told["outcome"], told["partition"], told["elsewhere"]) == (0, "restored", 1, [])
        await stages.produce(producer, "calm/3", partition=1)
        await stages.kept("calm/1", "calm/2", "calm/3")


async def test_a_trace_that_lies_in_two_partitions(kafka: Kafka, tmp_path: Path) -> None:
    """As after a change of their number: both are told, and both restored, by the owner of each."""
    stages = KeyedRestoring(kafka.bootstrap, tmp_path)
    await stages.create()
    async with stages.producer() as producer:
        async with running(stages.config, ["sample"]) as worker:
            await holds(worker, "sample")
            for place in range(2):
                await stages.produce(producer, f"calm/{place}", f"wrong/{place}{'!' * place}", partition=place)

            async def decided() -> bool:
                found = await stages.verdicts()
                return [len(found.get(name, ())) for name in ("calm", "wrong")] == [2, 2]

            await eventually(decided, DEADLINE, "both partitions decide")
            await stages.kept("wrong/1!")
            url = f"http://{HOST}:{worker.server.port}"
            async with running(stages.config, ["sample"]) as other:
                await holds(worker, "sample")
                await holds(other, "sample")
                result = await asyncio.to_thread(stages.call, "restore", "calm", url)
                assert (result.exit_code, "which nobody who answered owns" in result.output) == (1, True)
                second = f"http://{HOST}:{other.server.port}"
                result = await asyncio.to_thread(stages.call, "restore", "calm", url, "--worker", second)
            said = [line.split(": ", 1)[1].split(",")[0] for line in sorted(result.stdout.splitlines())]
            assert (result.exit_code, sorted(said)) == (0, ["kept already", "restored"])
            await stages.kept("wrong/1!", "calm/0", "calm/1")
            told = await asyncio.to_thread(stages.call, "explain", "wrong", url, "--json")
        found = json.loads(told.stdout)
        assert found["answered_by"] == url
        (elsewhere,) = found["elsewhere"]
        assert [(each["state"], each["partition"]) for each in (found, elsewhere)] == [("kept", 1), ("dropped", 0)]
        shown = await asyncio.to_thread(stages.call, "explain", "wrong", f"http://{HOST}:{free_port()}")
        assert "! records of it lie in partition 0 too" in shown.output


class Reviving(Restoring):
    """Late errors restore traces, few of them."""

    SECTIONS = {
        "sampling": {
            "decision_wait": "1s",
            "policies": [{"name": "errors", "type": "status_code", "status_code": {"status_codes": ["ERROR"]}}],
            "late_evidence": {"enabled": True, "traces_per_second": 0.001},
        }
    }


async def test_late_evidence(kafka: Kafka, tmp_path: Path) -> None:
    """A late error span restores its trace with what was before it and comes after it; the next is one too many."""
    stages = Reviving(kafka.bootstrap, tmp_path, partitions=1)
    await stages.create(raw=1)
    before = {outcome: _restores(outcome) for outcome in ("restored", "limited")}
    async with stages.producer() as producer, running(stages.config, ["ingest", "sample"]):
        await stages.produce(producer, "calm/1", "calm/2", "other/1")
        await stages.decided("calm", "other")
        await stages.produce(producer, "calm/3!")
        await stages.kept("calm/1", "calm/2", "calm/3!")
        await stages.produce(producer, "other/2!")
        await stages.produce(producer, "calm/4")
        await stages.kept("calm/1", "calm/2", "calm/3!", "calm/4")

        async def limited() -> bool:
            return _restores("limited") == before["limited"] + 1

        await eventually(limited, DEADLINE, "the second is counted")
    assert _restores("restored") == before["restored"] + 1
    assert await stages.verdicts() == {"calm": ["", RESTORED], "other": [""]}
    (why,) = [why for r in await stages.records(stages.topics.decisions)
              for why in DecisionRecord.decode(r.value).restored.values()]  # fmt: skip
    assert why == f"a late span failed (span {b'calm/3!'.rjust(8, bytes([1])).hex()})"


async def test_a_late_log_is_evidence_too(kafka: Kafka, tmp_path: Path) -> None:
    stages = Reviving(kafka.bootstrap, tmp_path, partitions=1)
    await stages.create(raw=1)
    before = _restores("restored", "late_log")
    failure = LogsData.FromString(log_of("calm", "it failed"))
    failure.resource_logs[0].scope_logs[0].log_records[0].severity_number = SEVERITY_NUMBER_ERROR
    async with stages.producer() as producer, running(stages.config, ["ingest", "sample"]):
        await stages.produce(producer, "calm/1", "calm/2")
        await stages.decided("calm")
        await producer.send_and_wait(f"{stages.raw}.logs", failure.SerializeToString(), partition=0)
        await stages.kept("calm/1", "calm/2")
    assert await stages.verdicts() == {"calm": ["", RESTORED]}
    assert _restores("restored", "late_log") == before + 1
    ((_, log),) = await stages.envelopes(stages.topics.kept_logs)
    assert b"it failed" in log.row(0)


def _restores(outcome: str, trigger: str = "late_span") -> float:
    labels = {"trigger": trigger, "outcome": outcome}
    return telemetry.REGISTRY.get_sample_value("tailrace_restores_total", labels) or 0.0


async def its_spans_are_gone(stages: Restoring, producer: AIOKafkaProducer, url: str) -> None:
    await stages.delete_passed()
    code, told = await stages.restore("other", url)
    assert (code, told["outcome"], told["partial"]) == (1, "gone", True)


def answer(outcome: str, url: str, why: str = "", partition: int = 0) -> dict[str, Any]:
    nothing = {"partition": partition, "spans": 0, "logs": 0, "partial": False}
    return {"outcome": outcome, "why": why, "answered_by": url, "elsewhere": []} | nothing


async def test_nobody_reads_on_when_more_was_found_than_can_be_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading to the tail would gather it all in memory, to be refused."""
    rows = building.envelope([building.span(bytes(15) + b"1")] * 10)
    monkeypatch.setattr(restore, "MOST_BYTES", 2 * len(rows.body))

    class Log:
        async def again(self, feed: str, position: int, tail: int) -> tuple[list[tuple[int, int, bytes]], int]:
            return [(position, 0, rows.encode())], position + 1

    class Passed:
        def tails(self) -> dict[str, int]:
            return {"spans": 1_000}

    restores = Restores(config_for("unused:9092"), 0, cast("Any", Passed()), asyncio.Lock())
    found = Restoration(trace_key(bytes(15) + b"1"), "", {"spans": 0}, {}, 1)
    await restores._read(cast("Any", Log()), found, float("inf"))
    assert (found.too_large, found.positions) == (True, {"spans": 3})


async def test_restores_that_late_evidence_sets_off_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are read one after the other: when that takes longer than they come, the rest is `limited`."""

    async def endless(*_: object) -> Answer:
        await asyncio.Event().wait()
        raise AssertionError("never")

    monkeypatch.setattr(Restores, "_restore", endless)
    restores = Restores(config_for("unused:9092"), 0, cast("Any", None), asyncio.Lock())
    labels = {"trigger": "late_span", "outcome": "limited"}
    before = telemetry.REGISTRY.get_sample_value("tailrace_restores_total", labels) or 0
    for second in range(100):
        restores.look({second: LateError("late_span", "status")}, float(second))
    assert len(restores._under_way) == BURST_SECONDS
    limited = (telemetry.REGISTRY.get_sample_value("tailrace_restores_total", labels) or 0) - before
    assert limited == 100 - BURST_SECONDS
    await restores.close()
