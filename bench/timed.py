"""A worker that adds up the CPU of its steps: `python -m bench.timed FILE worker --config …`.

The worker is Tailrace's own; what it does is wrapped, not changed. When it ends it writes FILE: of each step how often
it ran and its CPU seconds, without those of the steps within it. Each of them runs once for a batch, a burst or a
request, so the wrapping costs next to nothing.
"""

from __future__ import annotations

import json
import sys
import time
from asyncio.streams import StreamReader
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

from aiokafka.conn import AIOKafkaConnection
from aiokafka.producer.message_accumulator import MessageBatch

from pipeline.cli import main
from pipeline.kafka.consume import Group
from pipeline.kafka.decompression import _FetchResult
from processors.regroup import Regroup
from processors.sampling.window import Window
from schemas import decision, envelope, packing, point
from schemas.raw_batch import RawBatch, RawReader
from tests.end_to_end.harness import Worker

Places = dict[str, list[tuple[Any, str]]]
"""Steps, and what is wrapped for each: owner and attribute."""
READ: Places = {
    "bytes of the broker's answers put together": [(StreamReader, "feed_data")],
    "answers decoded": [(AIOKafkaConnection, "_handle_frame")],
    "record batches checked, decompressed, split": [(_FetchResult, "getall")],
}
HANDED: Places = {"batches handed over": [(Group, "_hand_over")]}
SENT: Places = {"requests encoded and written": [(AIOKafkaConnection, "send"), (MessageBatch, "append")]}
STEPS: dict[str, Places] = {
    "sample": {
        **READ,
        "messages taken apart": [(RawReader, "read")],
        "head: spans read, folded, decided": [(Window, "head")],
        "tail: kept spans cut out, counted": [(Window, "burst")],
        "batches that wait made smaller": [(RawBatch, "shrunk")],
        "and whole again": [(RawBatch, "whole")],
        **HANDED,
        "outputs packed (zstd)": [(module, "pack") for module in (envelope, decision, point)],
        **SENT,
    },
    "ingest": {
        **READ,
        "messages taken apart, rows copied to their envelopes": [(Regroup, "add_all")],
        "envelopes packed": [(Regroup, "flush")],
        "envelopes compressed (zstd)": [(packing, "compressed")],
        **HANDED,
        **SENT,
    },
}
"""What is wrapped in each role, by the names that the tables show."""


class TimedWorker(Worker):
    """One whose steps can be read once it has ended."""

    @property
    def steps(self) -> Path:
        """Where it writes them."""
        return self._config.with_suffix(".steps")

    def command(self) -> list[str]:
        """The same, through this module."""
        command = super().command()
        place = command.index("pipeline.cli")
        return [*command[:place], "bench.timed", str(self.steps), *command[place + 1 :]]


class Steps:
    """CPU seconds of one thread by step, each without what it calls of the others. `clock` is in ns."""

    def __init__(self, clock: Callable[[], int] = time.thread_time_ns) -> None:
        self._clock = clock
        self._within: list[int] = []  # ns of the steps within each of those that run now
        self.spent: dict[str, tuple[int, int]] = {}  # how often, ns

    def timed(self, name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        """`work`, counted as `name`."""

        @wraps(work)
        def run(*arguments: Any, **named: Any) -> Any:
            self._within.append(0)
            began = self._clock()
            try:
                return work(*arguments, **named)
            finally:
                took = self._clock() - began
                count, spent = self.spent.get(name, (0, 0))
                self.spent[name] = count + 1, spent + took - self._within.pop()
                if self._within:
                    self._within[-1] += took

        return run

    def save(self, file: Path) -> None:
        """As JSON: how often, CPU seconds."""
        seconds = {name: (count, spent / 1e9) for name, (count, spent) in self.spent.items()}
        file.write_text(json.dumps(seconds), encoding="utf-8")


if __name__ == "__main__":
    steps, target = Steps(), Path(sys.argv.pop(1))
    for step, places in STEPS[sys.argv[sys.argv.index("--role") + 1]].items():
        for owner, attribute in places:
            setattr(owner, attribute, steps.timed(step, getattr(owner, attribute)))
    try:
        main(prog_name="tailrace")
    finally:
        steps.save(target)
