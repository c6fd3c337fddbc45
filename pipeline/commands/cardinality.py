"""tailrace cardinality: how full every limit is, what it would have to be, and who is to blame."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import json
import re
import time
from collections.abc import Iterable
from typing import Any

import click
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from aiokafka.structs import OffsetAndMetadata

from pipeline.commands.console import CONFIG, asking, loaded, plural
from pipeline.config import Config
from pipeline.kafka.reader import Reader
from pipeline.kafka.security import client_kwargs
from pipeline.kafka.topics import Topics
from pipeline.operating.printable import printable
from pipeline.watching.told_limits import standing
from schemas.sample import Tick, read_tick

LARGEST_TICK = 1 << 30  # bytes, as in pipeline/aggregate.py
BEFORE_LABEL = r",(?=[A-Za-z_]\w*=)"  # values hold commas as well
OFFENDERS_SHOWN = 2
HEADINGS, NAMES = ("metric", "label", "active", "limit", "demand", "folded"), 2  # the first two are left-justified
COORDINATOR_LIMIT = 10.0  # seconds; a new cluster first makes the topic of offsets


@click.command()
@CONFIG
@click.option("--json", "as_json", is_flag=True, help="All limits with all offenders, as JSON.")
def cardinality(file: str, as_json: bool) -> None:
    """Show how full every limit on label values and series is.

    Reads the newest tick of each partition of the samples topic; workers are not asked. A line without a label is the
    budget of series of the metric. `demand` is what is in use or was refused lately, an estimate (2.3 % standard
    error): the limit that would have been needed. `folded` is what was counted under __overflow__ because of the limit.
    The fullest come first; below those that fold, what they refused most, of series without the labels that they share.
    Exit code 0, 1 when Kafka cannot be asked, 78 if the file is wrong.

    \b
      tailrace cardinality --config tailrace.yaml
      tailrace cardinality --config tailrace.yaml --json | jq '.limits[] | select(.folded > 0)'
    """
    config = loaded(file)
    with asking(config):
        ticks = asyncio.run(newest_ticks(config))
    if as_json:
        click.echo(json.dumps(document(ticks), ensure_ascii=False, indent=2))
    elif not ticks:
        click.echo("nothing was counted yet")
    else:
        _print(ticks)


async def newest_ticks(config: Config) -> list[Tick]:
    """The last committed tick of every partition that has one: where it begins is with the group's offset."""
    topics = Topics(config.kafka.prefix)
    admin, reader = AIOKafkaAdminClient(**client_kwargs(config.kafka)), Reader(config.kafka)
    try:
        await admin.start()
        offsets = await _offsets(admin, topics.group("aggregate"))
        ticks = []
        for points, committed in sorted(offsets.items()):
            if points.topic != topics.points or not committed.metadata.isdecimal():
                continue
            samples = TopicPartition(topics.samples, points.partition)
            _, end = await reader.end(samples)
            found = await reader.read(samples, int(committed.metadata), end, LARGEST_TICK)
            ticks.append(read_tick(value for _, _, value in found.records))
        return ticks
    finally:
        await reader.close()
        await admin.close()


async def _offsets(admin: AIOKafkaAdminClient, group: str) -> dict[TopicPartition, OffsetAndMetadata]:
    """What the group has committed; waits for a coordinator that is being elected."""
    deadline = time.monotonic() + COORDINATOR_LIMIT
    while True:
        try:
            found: dict[TopicPartition, OffsetAndMetadata] = await admin.list_consumer_group_offsets(group)
        except KafkaError as error:
            if not error.retriable or time.monotonic() > deadline:
                raise
        else:
            return found
        await asyncio.sleep(COORDINATOR_LIMIT / 100)


def document(ticks: Iterable[Tick]) -> dict[str, Any]:
    """What --json prints: every limit, the fullest first."""
    limits = []
    for tick in ticks:
        for metric, state in standing(tick.blocks):
            limits.append(
                {"metric": metric}
                | {key: value for key, value in dataclasses.asdict(state).items() if key not in ("offenders", "sketch")}
                | {"offenders": [{"value": value, "at_least": count} for value, count in state.offenders]}
            )
    limits.sort(key=lambda limit: -_fullness(limit["active"], limit["limit"]))
    return {"time": max((_time(tick) for tick in ticks), default=None), "limits": limits}


def _print(ticks: Iterable[Tick]) -> None:
    told = document(ticks)
    rows = [HEADINGS, *(_row(limit) for limit in told["limits"])]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row, limit in zip(rows, [None, *told["limits"]], strict=True):
        names = [text.ljust(width) for text, width in zip(row[:NAMES], widths, strict=False)]
        numbers = [text.rjust(width) for text, width in zip(row[NAMES:], widths[NAMES:], strict=True)]
        click.secho("  ".join(names + numbers), bold=limit is None, fg="red" if limit and limit["folded"] else None)
        if limit and limit["offenders"]:
            click.echo(f"    refused most, at least: {printable(_offenders(limit))}")
    click.echo(f"as of {told['time']}, {plural(len(told['limits']), 'limit')}")


def _row(limit: dict[str, Any]) -> tuple[str, ...]:
    numbers = (f"{limit[key]:.0f}" for key in HEADINGS[NAMES:])
    return printable(limit["metric"]), printable(limit["label"] or "(series)"), *numbers


def _offenders(limit: dict[str, Any]) -> str:
    """The first of them; of series what tells them apart, not the labels that they share."""
    shown = limit["offenders"][:OFFENDERS_SHOWN]
    parts = [[each["value"]] if limit["label"] else re.split(BEFORE_LABEL, each["value"]) for each in shown]
    shared = set.intersection(*map(set, parts)) if len(parts) > 1 else set[str]()
    own = [",".join(part for part in of_one if part not in shared) or ",".join(of_one) for of_one in parts]
    return ", ".join(f"{value} ({each['at_least']})" for value, each in zip(own, shown, strict=True))


def _fullness(active: int, limit: int) -> float:
    return active / limit if limit else float("inf")


def _time(tick: Tick) -> str:
    return datetime.datetime.fromtimestamp(tick.time_ms / 1000, datetime.UTC).isoformat(timespec="seconds")
