"""tailrace dlq: what could not be handled, why, and back to where it came from."""

from __future__ import annotations

import asyncio
import dataclasses
import datetime
import json
import sys
import time

import click
from rich.console import Console
from rich.table import Table

from pipeline.commands.console import (
    FILE,
    Command,
    asking,
    bad,
    good,
    loaded,
    note,
    plural,
    progress,
    words,
)
from pipeline.config import Config
from pipeline.kafka.reader import Progress
from pipeline.operating.dead_letters import Found, Queue, Summary, Wanted
from pipeline.operating.letter_text import readable
from pipeline.operating.printable import cell, printable
from pipeline.operating.replay import Replay, Replayed
from schemas.reasons import Reason
from schemas.settings import parse_duration
from sinks.settings import KINDS, sink_kind

NARROW = 120  # columns of a table that goes to a file
STAGES, SINK = ("ingest", "sample", "aggregate"), "sink."
MOST = 3  # times that the same bytes are replayed unless --most says otherwise


def _since(_: click.Context, __: click.Parameter, value: str | None) -> int | None:
    try:
        return None if value is None else int((time.time() - parse_duration(value)) * 1000)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


def _reasons(context: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> list[str]:
    found = words(context, parameter, given)
    known = [reason for reason in Reason if not reason.intentional and reason is not Reason.RETENTION]
    if strange := sorted(set(found) - set(known)):
        raise click.BadParameter(f"{', '.join(strange)}: no reason of a dead letter; they are {', '.join(known)}")
    return found


def _stages(context: click.Context, parameter: click.Parameter, given: tuple[str, ...]) -> list[str]:
    """Roles: those that write letters, and sinks of any name, which need not be in the file any more."""
    found = words(context, parameter, given)
    sinks = [stage for stage in found if stage.startswith(SINK) and sink_kind(stage.removeprefix(SINK)) in KINDS]
    if strange := sorted(set(found) - {*STAGES, *sinks}):
        known = f"{', '.join(STAGES)}, {SINK}KIND or {SINK}KIND/NAME with a KIND of {', '.join(KINDS)}"
        raise click.BadParameter(f"{', '.join(strange)}: no role that has dead letters; they are {known}")
    return found


def _filters(command: Command) -> Command:
    """The options that choose letters."""
    for option in (
        click.option("--since", callback=_since, metavar="AGO", help="Only what was written since 15m, 2h, ... ago."),
        click.option("--reason", "reasons", multiple=True, callback=_reasons, metavar="REASON[,…]", help="Only these."),
        click.option("--stage", "stages", multiple=True, callback=_stages, metavar="STAGE[,…]", help="Only these."),
        click.option("--topic", "topics", multiple=True, callback=words, metavar="TOPIC[,…]", help="Only from these."),
    ):
        command = option(command)
    return command


@click.group()
def dlq() -> None:
    """Show what could not be handled, and send it in again.

    \b
      tailrace dlq list tailrace.yaml
      tailrace dlq show tailrace.yaml 0:17 --payload
      tailrace dlq replay tailrace.yaml --reason malformed --dry-run
    """


@dlq.command("list")
@FILE
@_filters
@click.option("--json", "as_json", is_flag=True, help="The same as JSON.")
def list_(
    file: str, topics: list[str], stages: list[str], reasons: list[str], since: int | None, as_json: bool
) -> None:
    """Count the letters by topic, stage and reason.

    `first` is where the oldest one of the group lies in the queue, for `tailrace dlq show`; `replayed` counts those
    that were sent in again. Exit code 0, 1 when Kafka cannot be asked, 78 if the file is wrong.

    \b
      tailrace dlq list tailrace.yaml
      tailrace dlq list tailrace.yaml --since 2h --stage ingest --json
    """
    config, wanted = loaded(file), Wanted(topics, stages, reasons, since)

    async def work() -> Summary:
        with progress("reading") as told:
            async with Queue(config, told) as queue:
                summary = await queue.summary(wanted)
        _tell_strange(config, wanted, queue)
        return summary

    with asking(config):
        summary = asyncio.run(work())
    if as_json:
        groups = [
            dict(zip(("topic", "stage", "reason"), why, strict=True)) | dataclasses.asdict(group)
            for why, group in summary.groups.items()
        ]
        click.echo(json.dumps({"groups": groups, "foreign": summary.foreign}, ensure_ascii=False, indent=2))
        return
    _table(summary)


@dlq.command()
@FILE
@click.argument("where")
@click.option("--payload", is_flag=True, help="Also what is in it: decoded if it can be, else as bytes.")
def show(file: str, where: str, payload: bool) -> None:
    """Show one letter.

    WHERE is its place in the queue, partition:offset, or the raw record that it names, topic/partition/offset/index.
    What is in it may be personal data, so only --payload shows it: OTLP as JSON, text as it is, anything else as bytes.
    Exit code 0, 1 if there is no such letter, 78 if the file is wrong.

    \b
      tailrace dlq show tailrace.yaml 0:17
      tailrace dlq show tailrace.yaml otlp_spans/3/4711/0 --payload
    """
    config = loaded(file)

    async def work() -> Found:
        with progress("reading") as told:
            async with Queue(config, told) as queue:
                return await queue.letter(where)

    with asking(config):
        found = asyncio.run(work())
    letter = found.letter
    fields = {"place": str(found.place), "written": _time(found.time_ms)}
    fields |= {name: value.decode() for name, value in letter.headers()}
    fields["timestamp"] = f"{letter.timestamp} ({_time(letter.timestamp)})"
    fields["bytes"] = str(len(letter.value)) + (f" of {letter.cut_from}" if letter.cut_from else "")
    for name, text in fields.items():
        click.echo(f"{name:10} {printable(text)}".rstrip())
    if payload:
        click.echo()
        signals = {item.topic: item.signal for item in config.inputs}
        click.echo(readable(letter.value, signals.get(letter.topic)))


@dlq.command()
@FILE
@click.argument("where", required=False)
@_filters
@click.option("--to", metavar="TOPIC", help="Into this topic of `inputs` (default: where each came from).")
@click.option("--most", type=click.IntRange(min=1), default=MOST, show_default=True, metavar="TIMES",
              help="Leave letters whose bytes have been replayed so often.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Say what would be done; send nothing.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def replay(
    file: str, where: str | None, topics: list[str], stages: list[str], reasons: list[str], since: int | None,
    to: str | None, most: int, dry_run: bool, yes: bool,
) -> None:  # fmt: skip
    """Send letters in again, once what was wrong is mended.

    The bytes go back into the raw topic and partition they came from, with their time, in one transaction with a
    receipt for each letter: what was replayed once is not replayed again, and a command that was killed can be run
    again. Letters of a sink were counted and delivered elsewhere before it refused them: they are only sent if --stage
    names the sink. WHERE replays one letter, as in `tailrace dlq show`. Exit code 0 if all that were asked for are
    sent, 1 if some were left (it says why) or Kafka did not take them, 78 if the file or --to is wrong.

    \b
      tailrace dlq replay tailrace.yaml --reason malformed --dry-run
      tailrace dlq replay tailrace.yaml --topic app_logs --since 2h --yes
      tailrace dlq replay tailrace.yaml 0:17
    """
    config, wanted = loaded(file), Wanted(topics, stages, reasons, since)

    async def work(send: bool, told: Progress = lambda done, total: None) -> Replayed:
        async with Queue(config, told) as queue, Replay(config, queue, wanted, to, most) as replaying:
            one = None if where is None else await queue.letter(where)
            if not send:
                found = await replaying.look(one)
                _tell_strange(config, wanted, queue)
                return found
            return await replaying.run(one, lambda sent: click.echo(f"{sent} sent", err=True))

    async def look() -> Replayed:
        with progress("reading") as told:
            return await work(False, told)

    with asking(config):
        outcome = asyncio.run(look())
    _tell(outcome, "to be sent")
    if dry_run or not outcome.sent:
        note("nothing was sent (--dry-run)" if dry_run else "nothing to send")
    else:
        if not yes:  # between two loops: Ctrl-C ends the question, in a thread of a loop it would wait for an answer
            click.confirm(f"Send {plural(outcome.sent, 'letter')}?", abort=True)
        with asking(config):
            outcome = asyncio.run(work(send=True))
        _tell(outcome, "sent")
    if outcome.left:
        sys.exit(1)


def _tell_strange(config: Config, wanted: Wanted, queue: Queue) -> None:
    """Topics that were asked for and that nothing knows: a slip of the pen looks like a queue without letters."""
    for topic in sorted({*wanted.topics} - queue.topics - {item.topic for item in config.inputs}):
        there = f"letters are of {', '.join(sorted(queue.topics))}" if queue.topics else "there is none at all"
        note(printable(f"--topic {topic}: no input, and no letter is of it; {there}"), err=True)


def _tell(outcome: Replayed, what: str) -> None:
    good(f"{plural(outcome.sent, 'letter')} {what}, {outcome.bytes} bytes")
    if outcome.already:
        note(f"{plural(outcome.already, 'letter')} replayed before")
    for why, count in outcome.left.items():
        bad(f"{plural(count, 'letter')} left: {why}")


def _table(summary: Summary) -> None:
    table = Table(box=None, header_style="bold")
    for heading in ("topic", "stage", "reason", "letters", "replayed", "oldest", "newest", "first", "what it says"):
        number = heading in ("letters", "replayed")
        table.add_column(heading, justify="right" if number else "left", overflow="fold")
    for why, group in sorted(summary.groups.items(), key=lambda item: -item[1].letters):
        times = (_time(group.oldest_ms), _time(group.newest_ms)) if group.letters else ("", "")
        cells = (*why, str(group.letters), str(group.replayed), *times, group.first, group.detail)
        table.add_row(*map(cell, cells))
    console = Console(width=None if sys.stdout.isatty() else max(NARROW, _width(table)))
    if summary.groups:
        console.print(table)
    click.echo(f"{plural(sum(group.letters for group in summary.groups.values()), 'letter')}")
    if summary.foreign:
        note(f"{plural(summary.foreign, 'record')} in the topic that Tailrace did not write")


def _width(table: Table) -> int:
    return Console(width=10_000).measure(table).maximum


def _time(time_ms: int) -> str:
    try:
        return datetime.datetime.fromtimestamp(time_ms / 1000, datetime.UTC).isoformat(timespec="seconds")
    except (ValueError, OverflowError, OSError):  # anybody may write letters
        return f"{time_ms} ms"
