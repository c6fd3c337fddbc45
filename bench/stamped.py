"""A worker that notes when what happened to each batch: `python -m bench.stamped FILE worker --config …`.

The worker is Tailrace's own; what it does is wrapped, not changed. When it ends it writes FILE, which `Stamps` reads.
Times are ms since the epoch by the clock of this machine, which is the broker's too.
"""

from __future__ import annotations

import json
import sys
import time
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from aiokafka import AIOKafkaConsumer
from aiokafka.producer import sender

from bench.testbed import Place
from pipeline.cli import main
from pipeline.kafka import commit, consume
from pipeline.sending import delivery
from tests.end_to_end.harness import Worker

STEPS = {
    "AddPartitionsToTxn": sender.AddPartitionsToTxnHandler,
    "Produce": sender.SendProduceReqHandler,
    "AddOffsetsToTxn": sender.AddOffsetsToTxnHandler,
    "TxnOffsetCommit": sender.TxnOffsetCommitHandler,
    "EndTxn": sender.EndTxnHandler,
}
"""The requests of one transaction, in their order."""

Row = tuple[float, ...]


@dataclass(slots=True)
class Stamps:
    """What one worker noted. Rows of a place are in offset order, so `find` gives that of a record.

    `fetched`: (last offset, fetched, handed to its lease, handled). `written`: (offset, commit began, append time,
    committed), of each output record. `sent`: (raw offset, partition and offset of the record a sink read it from,
    queued, last request began, answered), by raw place. `steps`: of each request of a transaction (began, ms, whether
    it has to be asked again).
    """

    fetched: dict[Place, list[Row]] = field(default_factory=lambda: defaultdict(list))
    written: dict[Place, list[Row]] = field(default_factory=lambda: defaultdict(list))
    sent: dict[Place, list[Row]] = field(default_factory=lambda: defaultdict(list))
    steps: dict[str, list[Row]] = field(default_factory=lambda: defaultdict(list))

    def save(self, file: Path) -> None:
        """Write what `load` reads."""
        kinds = {name: getattr(self, name) for name in ("fetched", "written", "sent")}
        places = {name: [[*place, rows] for place, rows in kind.items()] for name, kind in kinds.items()}
        file.write_text(json.dumps(places | {"steps": self.steps}), encoding="utf-8")

    @classmethod
    def load(cls, file: Path) -> Stamps:
        """What `save` wrote."""
        told = json.loads(file.read_text(encoding="utf-8"))
        kinds = {
            name: {(topic, partition): sorted(map(tuple, rows)) for topic, partition, rows in told[name]}
            for name in ("fetched", "written", "sent")
        }
        return cls(**kinds, steps={name: list(map(tuple, rows)) for name, rows in told["steps"].items()})


def find(rows: list[Row], offset: int) -> Row | None:
    """The row of the record at `offset`, or of the batch that ends with it or a later one; None if there is none."""
    place = bisect_left(rows, (offset,))
    return rows[place] if place < len(rows) else None


class StampedWorker(Worker):
    """One whose stamps can be read once it has ended."""

    @property
    def stamps(self) -> Path:
        """Where it writes them."""
        return self._config.with_suffix(f".{'-'.join(self.roles)}.stamps")

    def command(self) -> list[str]:
        """The same, through this module."""
        command = super().command()
        place = command.index("pipeline.cli")
        return [*command[:place], "bench.stamped", str(self.stamps), *command[place + 1 :]]


def now() -> float:
    """ms since the epoch."""
    return time.time() * 1000


def observe(stamps: Stamps) -> None:
    """Wrap what a worker does from here on."""
    _observe_reading(stamps)
    _observe_writing(stamps)
    _observe_sending(stamps)
    for name, handler in STEPS.items():
        _observe_step(stamps.steps[name], handler)


def _observe_reading(stamps: Stamps) -> None:
    getmany, hand_over = AIOKafkaConsumer.getmany, consume.Group._hand_over
    fetched_at: dict[tuple[str, int, int], float] = {}

    async def stamped_getmany(self: Any, *partitions: Any, **options: Any) -> Any:
        found = await getmany(self, *partitions, **options)
        at = now()
        for partition, records in found.items():
            if records:
                fetched_at[partition.topic, partition.partition, records[-1].offset] = at
        return found

    def stamped_hand_over(self: consume.Group, fetched: consume.Fetched) -> None:
        began = now()
        hand_over(self, fetched)
        topic, partition = fetched.partition
        last = fetched.records[-1].offset
        stamps.fetched[topic, partition].append((last, fetched_at.pop((topic, partition, last)), began, now()))

    _replace(AIOKafkaConsumer, "getmany", stamped_getmany)
    _replace(consume.Group, "_hand_over", stamped_hand_over)


def _observe_writing(stamps: Stamps) -> None:
    write = commit.Committer.commit

    async def stamped_commit(self: commit.Committer, *arguments: Any) -> Any:
        began = now()
        written = await write(self, *arguments)
        ended = now()
        for record in written:
            stamps.written[record.topic, record.partition].append((record.offset, began, record.timestamp, ended))
        return written

    _replace(commit.Committer, "commit", stamped_commit)


def _observe_sending(stamps: Stamps) -> None:
    add, send = delivery.Delivery.add, delivery.Delivery._send
    queued: dict[tuple[int, int], Row] = {}

    async def stamped_add(self: delivery.Delivery, account: Any, record: Any) -> None:
        queued[id(account), record.offset + 1] = (record.partition, record.offset, now())
        await add(self, account, record)

    async def stamped_send(self: delivery.Delivery, entries: Any, *how: Any) -> Any:
        began = now()
        outcome = await send(self, entries, *how)
        ended = now()
        records = set()
        for entry in entries:
            at, ticket = entry.item.origin, entry.ticket
            records.add((at.topic, at.partition, at.offset, id(ticket.account), ticket.upto))
        for topic, partition, offset, account, upto in records:
            stamps.sent[topic, partition].append((offset, *queued[account, upto], began, ended))
        return outcome

    _replace(delivery.Delivery, "add", stamped_add)
    _replace(delivery.Delivery, "_send", stamped_send)


def _observe_step(rows: list[Row], handler: Any) -> None:
    do = handler.do

    async def stamped_do(self: Any, node: Any) -> Any:
        began = now()
        answer = await do(self, node)
        rows.append((began, now() - began, answer is False))
        return answer

    _replace(handler, "do", stamped_do)


def _replace(owner: Any, name: str, function: Callable[..., Any]) -> None:
    setattr(owner, name, function)


if __name__ == "__main__":
    noted = Stamps()
    observe(noted)
    output = Path(sys.argv.pop(1))
    try:
        main()
    finally:
        noted.save(output)
