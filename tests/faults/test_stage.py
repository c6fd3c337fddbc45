"""What the harness mends by itself while a run goes on."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

from tests.faults.stage import STUCK, Stage
from tests.services import eventually

DEADLINE = 30.0


class Broker:
    """Only its log and its lives."""

    def __init__(self, log: Path) -> None:
        self.log, self.starts = log, 0

    def kill(self) -> None:
        """Nothing runs."""

    def start(self) -> None:
        """One life more."""
        self.starts += 1

    def say(self, words: bytes) -> None:
        """A line of its log."""
        with self.log.open("ab") as log:
            log.write(words + b"\n")


async def test_a_broker_whose_coordinator_is_stuck_is_started_again_once_for_each_time(tmp_path: Path) -> None:
    broker = Broker(tmp_path / "server.log")
    broker.say(b"of an earlier run: " + STUCK)
    stage = Stage(cast(Any, broker), cast(Any, None), cast(Any, None), {}, [], None)
    supervisor = asyncio.create_task(stage.supervise())

    async def started(times: int) -> bool:
        return broker.starts == stage.unstuck == times

    try:
        await asyncio.sleep(0)
        for times in (1, 2):
            broker.say(b"Writing records failed due to: " + STUCK + b" 16383")
            await eventually(lambda times=times: started(times), DEADLINE, "it was started again")  # type: ignore[misc]
    finally:
        supervisor.cancel()
        await asyncio.gather(supervisor, return_exceptions=True)
    assert [one.cause for one in stage.disturbances] == ["broker away", "broker away"]
