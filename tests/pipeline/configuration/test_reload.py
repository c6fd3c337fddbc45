"""The configuration file changes while workers run: followed, or refused and said so; no trace has two versions."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import re
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from http import HTTPStatus
from operator import index
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml
from aiohttp import ClientError, ClientSession
from aiokafka import TopicPartition

from pipeline import roles, telemetry
from pipeline.config import Config
from pipeline.configuration.config_file import load
from pipeline.configuration.reload import File, Reload, fixed
from pipeline.configuration.yaml_tree import dotted
from pipeline.kafka import consume
from pipeline.sample import PartitionPair
from pipeline.started import Started
from pipeline.watching.identity import config_hash
from pipeline.worker import Worker, running
from processors.sampling.compile import compile_policies
from schemas.decision import DecisionRecord
from tests.pipeline.configs import MINIMAL, as_yaml
from tests.pipeline.kafka import DEADLINE
from tests.pipeline.stages import Stages, busy, holds
from tests.services import Kafka, eventually
from tests.services.process import HOST, free_port

SWITCH_SECONDS = 5.0
INGESTED, SAMPLED = 3, 2  # partitions of a pipeline of Stages
BUDGET = 1234  # series of a metric
ERRORS = {"name": "errors", "type": "status_code", "status_code": {"status_codes": ["ERROR"]}}
FAILED = ERRORS | {"name": "failed"}
HURRY = {"commit_interval": "20ms"}
ALL = {"name": "all", "type": "always_sample"}


# ---- the file ------------------------------------------------------------------------------------------------


class Followed:
    """A file behind two symlinks, as a ConfigMap is mounted, and what follows it."""

    def __init__(self, folder: Path, content: dict[str, Any]) -> None:
        self._folder, self._version = folder, 0
        self.path = folder / "tailrace.yaml"
        self.path.symlink_to(Path("..data") / "tailrace.yaml")
        self.write(content)
        self.applied: list[Config] = []
        first = load(self.path, {})
        self.reload = Reload(first, self._apply, File(self.path, lambda: load(self.path, {})))
        self.task = asyncio.create_task(self.reload.run())

    async def _apply(self, config: Config) -> None:
        self.applied.append(config)

    def write(self, content: dict[str, Any] | str) -> None:
        """As the kubelet does: a new folder, then the symlink to it is replaced."""
        self._version += 1
        data = self._folder / f"..{self._version}"
        data.mkdir()
        (data / "tailrace.yaml").write_text(content if isinstance(content, str) else as_yaml(content))
        (self._folder / "..new").symlink_to(data.name)
        os.replace(self._folder / "..new", self._folder / "..data")

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        async def met() -> bool:
            return condition()

        await eventually(met, DEADLINE, what)


@pytest.fixture
async def followed(tmp_path: Path) -> AsyncIterator[Followed]:
    found = Followed(tmp_path, MINIMAL)
    yield found
    found.task.cancel()


def value(name: str) -> float | None:
    return telemetry.REGISTRY.get_sample_value(name)


async def test_a_file_is_followed_and_a_wrong_one_refused(followed: Followed, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "pipeline.configuration.reload")
    reload = followed.reload
    before = reload.state()["hash"]
    followed.write(MINIMAL | {"sampling": {"policies": [ERRORS]}})
    await followed.until(lambda: bool(followed.applied), "the file is followed")
    assert [policy.name for policy in reload.config.sampling.policies] == ["errors"]
    assert reload.state() == {"hash": config_hash(reload.config), "stale": None}
    assert reload.state()["hash"] != before
    since = value("tailrace_config_last_reload_success_timestamp_seconds") or 0
    assert (value("tailrace_config_last_reload_successful"), since > time.time() - DEADLINE) == (1, True)

    followed.write(as_yaml(MINIMAL).replace("always_sample", "always"))
    await followed.until(lambda: bool(reload.problem), "the wrong file is refused")
    assert "tailrace.yaml:10:5: " in reload.problem
    assert "sampling.policies[0].type: must be one of" in reload.problem
    assert value("tailrace_config_last_reload_successful") == 0
    assert reload.state()["hash"] == config_hash(reload.config)

    followed.write(MINIMAL | {"kafka": MINIMAL["kafka"] | {"partitions": 8}, "sampling": {"policies": [ALL]}})
    await followed.until(lambda: "kafka.partitions: changed" in reload.problem, "what needs a restart is refused")
    followed.path.unlink()
    await followed.until(lambda: "cannot be read" in reload.problem, "a file that is gone is refused")
    assert len(followed.applied) == 1

    followed.path.symlink_to(Path("..data") / "tailrace.yaml")
    followed.write(MINIMAL | {"sampling": {"policies": [ERRORS]}})
    await followed.until(lambda: not reload.problem, "the old content is right again")
    last = caplog.records[-1]
    assert last.message == "the configuration file is right again, and what runs"
    assert last.__dict__["hash"] == reload.state()["hash"]
    assert (len(followed.applied), value("tailrace_config_last_reload_successful")) == (1, 1)


async def test_when_asked_it_reads_a_file_that_has_not_changed(tmp_path: Path) -> None:
    """SIGHUP: what the file takes from elsewhere may be another."""
    path, environ, applied = tmp_path / "tailrace.yaml", {"WAIT": "5s"}, list[Config]()
    path.write_text(as_yaml(MINIMAL | {"sampling": {"decision_wait": "${WAIT}", "policies": [ALL]}}))

    async def apply(config: Config) -> None:
        applied.append(config)

    reload = Reload(load(path, environ), apply, File(path, lambda: load(path, environ)))
    task = asyncio.create_task(reload.run())
    try:
        environ["WAIT"] = "7s"
        reload.ask()

        async def followed() -> bool:
            return bool(applied)

        await eventually(followed, DEADLINE, "the file is read again")
    finally:
        task.cancel()
    assert applied[0].sampling.decision_wait == 7


@pytest.mark.parametrize(
    ("change", "keys"),
    [
        ({"sampling": {"decision_wait": "5s", "policies": [ALL]}, "logs": {"unsampled": "drop"}}, []),
        ({"metrics": {"series_per_metric": 70}}, []),
        ({"metrics": {"span_metrics": {"buckets_ms": [1]}}}, ["metrics.span_metrics.buckets_ms"]),
        ({"telemetry": {"port": 1}}, ["telemetry.port"]),
        ({"sinks": {"jaeger": {"endpoint": "http://a"}}}, ["sinks"]),
    ],
)
def test_what_needs_a_restart(change: dict[str, Any], keys: list[str]) -> None:
    found = fixed(Config.model_validate(MINIMAL), Config.model_validate(MINIMAL | change))
    assert [dotted(key) for key in found] == keys


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"telemetry": {"port": 1}}, "telemetry.port: changed, which needs a restart"),
        ({"kafka": {"partitions": 8}}, "kafka.partitions: changed, which `tailrace topics resize` does"),
        ({"kafka": {"prefix": "other"}}, "kafka.prefix: changed, which takes other topics"),
        ({"regroup": "never"}, "regroup: changed, which needs another kafka.prefix"),
    ],
)
async def test_what_is_needed_instead_of_a_restart_is_said_with_the_line(
    followed: Followed, change: dict[str, Any], told: str
) -> None:
    """A worker that was restarted, as it was told to be, exited with 78."""
    ((section, new),) = change.items()
    content = MINIMAL | {section: MINIMAL.get(section, {}) | new if isinstance(new, dict) else new}
    followed.write(content)
    await followed.until(lambda: bool(followed.reload.problem), "it is refused")
    place, rule = re.fullmatch(r".*tailrace\.yaml:(\d+):\d+: (.*)", followed.reload.problem).groups()  # type: ignore[union-attr]
    key = told.partition(":")[0].rpartition(".")[2]
    assert followed.path.read_text().splitlines()[int(place) - 1].strip().startswith(f"{key}:")
    assert rule.startswith(told)


# ---- workers -------------------------------------------------------------------------------------------------


class Changed(Stages):
    """Three workers that follow one file."""

    SECTIONS: ClassVar[dict[str, Any]] = {
        "sampling": {"decision_wait": "1s", "policies": [ERRORS]},
        "metrics": {"interval": "1s"},
    }

    async def run(self, stack: contextlib.AsyncExitStack, *roles: str) -> Worker:
        file = File(self.file, lambda: load(self.file, {}))
        return await stack.enter_async_context(running(self.config, list(roles), file=file))

    def write(self, policies: list[dict[str, Any]]) -> str:
        """Another file; the version of these policies."""
        self.settings["sampling"]["policies"] = policies
        self.file.write_text(yaml.safe_dump(self.settings))
        return compile_policies(load(self.file, {}).sampling.policies).version

    async def decided(self) -> list[tuple[int, str, str, int]]:
        """Every verdict in the log: trace, policy, version of the policies, append time in ms."""
        found = []
        for record in await self.records(self.topics.decisions):
            decisions = DecisionRecord.decode(record.value)
            for key, verdict in zip(decisions.keys, decisions.verdicts, strict=True):
                found.append((key, verdict.policy, decisions.checkpoint.policy_version, record.timestamp))
        return found


async def readiness(worker: Worker) -> dict[str, Any]:
    async with ClientSession() as session, session.get(f"http://127.0.0.1:{worker.server.port}/readyz") as answer:
        found: dict[str, Any] = await answer.json()
        return found | {"status": answer.status}


async def test_three_workers_follow_one_file_and_no_trace_has_two_versions(kafka: Kafka, tmp_path: Path) -> None:
    stages = Changed(kafka.bootstrap, tmp_path, partitions=3)
    await stages.create()
    async with contextlib.AsyncExitStack() as stack:
        workers = [await stages.run(stack, "sample") for _ in range(3)]
        workers.append(await stages.run(stack, "ingest", "aggregate"))
        await eventually(lambda: stages.has_members("sample", 3), DEADLINE, "three workers share sampling")
        await asyncio.gather(*(holds(worker, "sample") for worker in workers[:3]))
        async with busy(stages):
            old = stages.write([ERRORS])
            await _decided_by(stages, old, 30)
            before = await readiness(workers[0])

            stages.settings["metrics"]["series_per_metric"] = BUDGET
            new = stages.write([FAILED, {**ALL, "shadow": True}])
            changed = time.time()
            async with _always_ready(workers[:3]):
                await _all(workers, lambda told: told["config"]["hash"] != before["config"]["hash"] and told["ready"])
                assert time.time() - changed < SWITCH_SECONDS
            await _decided_by(stages, new, 30)
            await eventually(_has_budget, DEADLINE, "the limit is that of the new file")

            stages.file.write_text(stages.file.read_text().replace("status_code", "status_cod"))
            await _all(workers, lambda told: told["status"] == 200 and "status_cod" in (told["config"]["stale"] or ""))
            at = int(time.time() * 1000)
            await _decided_by(stages, new, 30, since=at)
        await _complete(stages, old, new)


@contextlib.asynccontextmanager
async def _always_ready(workers: list[Worker]) -> AsyncIterator[None]:
    """No worker is unready at any moment while the block runs."""

    async def looking() -> None:
        while all(worker.ready()["sample"] for worker in workers):  # noqa: ASYNC110 (a moment would do)
            await asyncio.sleep(0.001)

    task = asyncio.create_task(looking())
    yield
    assert not task.done(), "a worker was not ready"
    task.cancel()


async def test_a_worker_stays_ready_while_takeovers_last_longer_than_a_session(
    kafka: Kafka, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six partitions with verdicts of ten minutes took 9.9 s: /readyz said 503. One that never ends is told."""
    stages = Changed(kafka.bootstrap, tmp_path)
    await stages.create()
    go_on = asyncio.Event()
    go_on.set()
    opened = PartitionPair.open

    async def slowly(lease: PartitionPair) -> Mapping[TopicPartition, int]:
        await go_on.wait()
        return await opened(lease)

    monkeypatch.setattr(PartitionPair, "open", slowly)
    async with contextlib.AsyncExitStack() as stack:
        worker = await stages.run(stack, "sample")
        await holds(worker, "sample")
        (group,) = worker.services

        async def longer_than_a_session() -> bool:
            since = [began for _, began in group._opening.values()]
            return len(since) == SAMPLED and time.monotonic() - max(since) > group.kafka.session_timeout

        go_on.clear()
        async with _always_ready([worker]):
            stages.write([FAILED])
            await eventually(longer_than_a_session, DEADLINE, "the takeovers have lasted for a session")
            assert (await readiness(worker))["status"] == HTTPStatus.OK
            go_on.set()
            await eventually(lambda: has_all(worker), DEADLINE, "both partitions are held again")

        monkeypatch.setattr(consume, "RENEWAL_LIMIT", 0.1)
        go_on.clear()
        stages.write([ERRORS])
        await _all([worker], lambda told: told["status"] == HTTPStatus.SERVICE_UNAVAILABLE)
        go_on.set()
        await holds(worker, "sample")


async def has_all(worker: Worker) -> bool:
    return all(len(group._leases) == SAMPLED for group in worker.services)


class Signalled(Stages):
    """A worker process whose file takes `decision_wait` from another file."""

    def __init__(self, bootstrap: str, folder: Path) -> None:
        super().__init__(bootstrap, folder)
        self.port, self.wait = free_port(), folder / "wait"
        self.settings["telemetry"]["port"] = self.port
        self.settings["sampling"]["decision_wait"] = f"${{file:{self.wait}}}"
        self.wait.write_text("1s")
        self.file.write_text(yaml.safe_dump(self.settings))

    async def page(self, path: str) -> str:
        """What the worker says, "" as long as it says nothing."""
        try:
            async with ClientSession() as session, session.get(f"http://{HOST}:{self.port}{path}") as answer:
                return await answer.text() if answer.status == HTTPStatus.OK else ""
        except ClientError:
            return ""

    async def takeovers(self) -> dict[str, int]:
        """Role → partitions that it has taken over."""
        found = re.findall(r'^tailrace_takeovers_total{role="(\w+)"} (\d+)', await self.page("/metrics"), re.MULTILINE)
        return {role: int(number) for role, number in found}


async def test_sighup_makes_a_worker_read_what_its_file_takes_from_elsewhere(kafka: Kafka, tmp_path: Path) -> None:
    """The file is as before, so nothing but the signal says so; both roles go on with the new decision_wait."""
    stages = Signalled(kafka.bootstrap, tmp_path)
    await stages.create()
    process = stages.start("ingest", "sample")
    try:

        async def owns(each: int) -> bool:
            taken = await stages.takeovers()
            return taken.get("ingest", 0) >= INGESTED * each and taken.get("sample", 0) >= SAMPLED * each

        await eventually(lambda: owns(1), DEADLINE, "the worker owns everything")
        before = json.loads(await stages.page("/readyz"))["config"]["hash"]
        stages.wait.write_text("2s")
        process.send_signal(signal.SIGHUP)
        await eventually(lambda: owns(2), DEADLINE, "all is taken over under the new file")
        told = json.loads(await stages.page("/readyz"))
        assert (told["ready"], told["config"]["stale"], told["config"]["hash"] == before) == (True, None, False)
        process.terminate()
        assert await asyncio.to_thread(process.wait, DEADLINE) == 0
    finally:
        stages.stop()


async def test_a_file_that_is_gone_when_its_problems_are_told_ends_nothing(followed: Followed) -> None:
    changed = Config.model_validate(MINIMAL | {"kafka": MINIMAL["kafka"] | {"partitions": 8}})
    followed.path.unlink()
    await followed.reload._follow(File(followed.path, lambda: changed))
    assert "cannot be read" in followed.reload.problem


@pytest.mark.parametrize(("regroup", "longer"), [("always", True), ("never", False)])
async def test_a_longer_wait_needs_raw_topics_that_keep_more(regroup: str, longer: bool, tmp_path: Path) -> None:
    """With `regroup: never` a worker asks at its start whether they do, and not again."""
    settings = MINIMAL | {"regroup": regroup}
    followed = Followed(tmp_path, settings)
    try:
        for wait, taken in (("10s", True), ("30s", True), ("31s", longer)):
            followed.applied.clear()
            followed.write(settings | {"sampling": {"decision_wait": wait, "policies": [ALL]}})
            await followed.until(lambda: bool(followed.reload.problem or followed.applied), wait)
            assert followed.reload.problem.startswith("sampling.decision_wait: longer than at the start") != taken
    finally:
        followed.task.cancel()


def test_ingest_is_taken_over_for_another_wait_alone() -> None:
    old = Config.model_validate(MINIMAL)
    other = Config.model_validate(MINIMAL | {"sampling": {"policies": [ERRORS]}})
    waits = Config.model_validate(MINIMAL | {"sampling": {"decision_wait": "7s", "policies": [ALL]}})
    assert roles.leases(old, other, "ingest", Started()) is None
    assert roles.leases(old, waits, "ingest", Started()) is not None
    assert roles.leases(old, other, "sample", Started()) is not None


async def _has_budget() -> bool:
    samples = [s for family in telemetry.REGISTRY.collect() for s in family.samples]
    return BUDGET in [sample.value for sample in samples if sample.name == "tailrace_series_budget"]


async def _all(workers: list[Worker], met: Callable[[dict[str, Any]], bool]) -> None:
    async def everyone() -> bool:
        return all([met(await readiness(worker)) for worker in workers])

    await eventually(everyone, DEADLINE, "every worker says so in /readyz")


async def _decided_by(stages: Changed, version: str, count: int, since: int = 0) -> None:
    async def enough() -> bool:
        return sum(found == version and at >= since for _, _, found, at in await stages.decided()) >= count

    await eventually(enough, DEADLINE, f"{version} has decided {count} traces")


async def _complete(stages: Changed, old: str, new: str) -> None:
    """Everything that was produced is decided once, by one version, and forwarded whole or not at all."""
    failed = {name.split("/")[0] for name in stages.produced if name.endswith("!")}
    kept = Counter({name: count for name, count in stages.produced.items() if name.split("/")[0] in failed})

    async def there() -> bool:
        return (await stages.names(stages.topics.kept_spans)).total() >= kept.total()

    await eventually(there, DEADLINE, "all failed traces are forwarded")
    assert await stages.names(stages.topics.kept_spans) == kept
    verdicts = await stages.decided()
    assert max(Counter(key for key, *_ in verdicts).values()) == 1
    assert {version for _, _, version, _ in verdicts} == {old, new}
    assert {(policy, version) for _, policy, version, _ in verdicts if policy} == {("errors", old), ("failed", new)}
    wait: Callable[[], Awaitable[bool]] = stages_counted(stages)
    await eventually(wait, DEADLINE, "every span is counted once")


def stages_counted(stages: Changed) -> Callable[[], Awaitable[bool]]:
    async def counted() -> bool:
        return await stages.counted() == sum(stages.produced.values())

    return counted


async def test_how_long_a_fetch_waits_follows_the_file(kafka: Kafka, tmp_path: Path) -> None:
    """Or what is read would wait as long as before in the broker, however often it is committed."""
    stages = await Stages(kafka.bootstrap, tmp_path).create()
    file = File(stages.file, lambda: load(stages.file, {}))
    async with running(stages.config, ["ingest", "sample"], file=file) as worker:
        waits = {group.role: group.consumer._fetcher._fetch_max_wait_ms for group in worker.services}
        assert min(map(index, waits.values())) >= 10
        stages.file.write_text(as_yaml(stages.settings | {"sampling": stages.settings["sampling"] | HURRY}))

        async def follows() -> bool:
            return index(waits["sample"]) == 5

        await eventually(follows, DEADLINE, "its fetches end sooner")
        assert index(waits["ingest"]) >= 10
