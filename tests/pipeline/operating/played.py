"""A pipeline with a history that can be simulated."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import yaml
from aiokafka.admin import AIOKafkaAdminClient
from click.testing import CliRunner, Result

from pipeline.cli import cli
from pipeline.kafka.reader import Reader
from pipeline.worker import running
from schemas.decision import DecisionRecord
from tests.pipeline.kafka import DEADLINE
from tests.pipeline.stages import Stages, administration, busy, now, partition
from tests.services import eventually

ERRORS = {"name": "errors", "type": "status_code", "status_code": {"status_codes": ["ERROR"]}}
HALF = {"name": "half", "type": "probabilistic", "probabilistic": {"sampling_percentage": 50}}
RATE = {"name": "rate", "type": "rate_limiting", "rate_limiting": {"spans_per_second": 6}}
POLICIES = [ERRORS, HALF, RATE]
TRACES = 40  # decided before and after the middle


class Played(Stages):
    """A pipeline that has run, and the time in the middle of it."""

    SECTIONS = {"sampling": {"decision_wait": "1s", "policies": POLICIES}}
    middle = 0

    async def play(self) -> Played:
        async with running(self.config, ["ingest", "sample"]):
            async with busy(self, whole=True):
                await eventually(lambda: self.decided(TRACES), DEADLINE, "traces are decided")
                await asyncio.sleep(1 - now() % 1000 / 1000)  # times are told in whole seconds
                self.middle, before = now() // 1000 * 1000, len(await self.recorded())
                await eventually(lambda: self.decided(before + TRACES), DEADLINE, "more traces are decided")
            # What is decided is forwarded, and counted, once its whole envelope is.
            traces = {name.split("/")[0] for name in self.produced}
            await eventually(lambda: self.decided(len(traces)), DEADLINE, "all traces are decided")
        return self

    async def decided(self, count: int) -> bool:
        return len(await self.recorded()) >= count

    async def recorded(self, since: int = 0) -> dict[int, str]:
        """The first verdict of each trace that was written at or after a time: the policy, "" for dropped."""
        found: dict[int, str] = {}
        for record in await self.records(self.topics.decisions):
            decisions = DecisionRecord.decode(record.value)
            if record.timestamp >= since:
                for key, verdict in zip(decisions.keys, decisions.verdicts, strict=True):
                    found.setdefault(key, verdict.policy)
        return found

    def simulate(self, policies: list[dict[str, Any]], *words: str, since: str = "earliest") -> Result:
        path = self.file.parent / "new.yaml"
        path.write_text(yaml.safe_dump({"policies": policies}))
        call = ["simulate", "--config", str(self.file), "--policies", str(path), "--since", since, *words]
        return CliRunner().invoke(cli, call, env={"FORCE_COLOR": "1"})  # a terminal to rich: it has a progress bar

    async def report(self, policies: list[dict[str, Any]], *words: str, since: str = "earliest") -> dict[str, Any]:
        result = await asyncio.to_thread(self.simulate, policies, "--json", *words, since=since)
        assert result.exit_code == 0, result.output
        found: dict[str, Any] = json.loads(result.stdout)
        return found

    async def state(self) -> tuple[Any, ...]:
        """Everything that a simulation must not touch: groups, what they have committed, topics and their ends."""
        async with administration(self.bootstrap) as admin:
            groups = sorted(group for group, *_ in await admin.list_consumer_groups())
            offsets = [
                await admin.list_consumer_group_offsets(self.topics.group(role)) for role in ("ingest", "sample")
            ]
            topics = sorted(await admin.list_topics())
            ends = await self._ends(admin)
        return groups, offsets, topics, ends

    async def nothing_is_open(self) -> bool:
        """Whether no transaction that a worker left when it stopped is still to be ended by the broker."""
        readers = [Reader(self.config.kafka, committed=committed) for committed in (True, False)]
        try:
            topics = self.topics.spans, self.topics.logs, self.topics.decisions, self.topics.kept_spans
            stable, all_there_is = [[await each.end(partition(name)) for name in topics] for each in readers]
            return stable == all_there_is
        finally:
            for each in readers:
                await each.close()

    async def _ends(self, admin: AIOKafkaAdminClient) -> dict[str, tuple[int, int]]:
        reader = Reader(self.config.kafka)
        try:
            topics = (self.topics.spans, self.topics.logs, self.topics.decisions, self.topics.kept_spans)
            return {topic: await reader.end(partition(topic)) for topic in topics}
        finally:
            await reader.close()
