"""A pipeline whose workers restore traces."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import Any

from aiokafka.admin import RecordsToDelete
from click.testing import CliRunner, Result
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord

from pipeline.cli import cli
from tests.pipeline.kafka import DEADLINE, committed
from tests.pipeline.stages import Stages, administration, partition, trace_id
from tests.services import eventually

TOKEN = "sixteen letters or more"


class Restoring(Stages):
    """One partition; the live page is on."""

    SECTIONS = {"telemetry": {"port": 0, "token": TOKEN, "live": True}}

    def call(self, command: str, name: str, url: str, *words: str) -> Result:
        base = [command, "--config", str(self.file), trace_id(name).hex(), "--worker", url, *words]
        return CliRunner().invoke(cli, base, env={"TAILRACE_TOKEN": TOKEN, "LOGNAME": "ada"})

    async def restore(self, name: str, url: str, *words: str) -> tuple[int, dict[str, Any]]:
        """Exit code and answer of the command."""
        result = await asyncio.to_thread(self.call, "restore", name, url, "--why", "incident 4711", "--json", *words)
        assert result.stdout, result.stderr
        found: dict[str, Any] = json.loads(result.stdout)
        return result.exit_code, found

    async def decided(self, *names: str) -> None:
        async def there() -> bool:
            return set(names) <= set(await self.verdicts())

        await eventually(there, DEADLINE, f"{names} are decided")

    async def kept(self, *names: str) -> None:
        """Wait until so many spans were forwarded: just these, once."""

        async def there() -> bool:
            return (await self.names(self.topics.kept_spans)).total() >= len(names)

        await eventually(there, DEADLINE, f"{names} are kept")
        assert await self.names(self.topics.kept_spans) == Counter(names)

    async def passed(self, name: str) -> None:
        """Wait until the tail has passed a span."""

        async def behind() -> bool:
            offsets = [r.offset for r, e in await self.envelopes(self.topics.spans) for i in range(len(e))
                       if name.encode() in e.row(i)]  # fmt: skip
            tail = await committed(self.bootstrap, self.topics.group("sample"), partition(self.topics.spans))
            return bool(offsets) and (tail or 0) > max(offsets)

        await eventually(behind, DEADLINE, f"the tail has passed {name}")

    async def kept_logs(self) -> dict[str, tuple[bool, str]]:
        """Body → whether its trace was kept, and by which policy."""
        found: dict[str, tuple[bool, str]] = {}
        for _, envelope in await self.envelopes(self.topics.kept_logs):
            for row, verdict in enumerate(envelope.verdicts):
                body = LogRecord.FromString(envelope.row(row)).body.string_value
                assert body not in found, "once"
                assert verdict is not None
                found[body] = verdict.kept, verdict.policy
        return found

    async def delete_passed(self) -> None:
        """What retention does to what the tail has passed."""
        topic = self.topics.spans
        tail = await committed(self.bootstrap, self.topics.group("sample"), partition(topic))
        async with administration(self.bootstrap) as admin:
            await admin.delete_records({partition(topic): RecordsToDelete(before_offset=tail)})
