"""tailrace topics resize: another number of partitions for a pipeline that has run."""

from __future__ import annotations

import asyncio

import click

from pipeline.commands.console import FILE, asking, good, loaded, note, plural, progress
from pipeline.config import Config
from pipeline.operating.resize import Plan, Resize
from schemas.errors import TailraceError


@click.command("resize")
@FILE
@click.option("--partitions", required=True, type=click.IntRange(min=1), help="N from now on.")
@click.option("--dry-run", is_flag=True, help="Say what would be done; change nothing.")
def resize(file: str, partitions: int, dry_run: bool) -> None:
    """Change N, the number of partitions of spans, logs and decisions.

    Stop ingest and sample first, and whatever would start them again; producers, aggregate and sinks run on. What is
    undecided, the verdicts that late spans need and the positions move to the new partitions in one transaction: no
    trace is split, decided early or counted twice. Afterwards set kafka.partitions and start the workers; ingest
    goes on where it was. Killed, it has changed nothing: run it again, or with the old N to give it up. Exit code 0
    if that N is in force, 1 if not, 78 if the file is wrong.

    \b
      tailrace topics resize tailrace.yaml --partitions 32 --dry-run
      tailrace topics resize tailrace.yaml --partitions 32
    """
    config = loaded(file)
    with asking(config):
        asyncio.run(_resize(config, partitions, dry_run))


async def _resize(config: Config, partitions: int, dry_run: bool) -> None:
    async with Resize(config, partitions) as work:
        here = [f"{role} has {plural(count, 'worker')}" for role, count in (await work.members()).items() if count]
        if here and not dry_run:
            raise TailraceError(f"{' and '.join(here)}: stop them first (a killed one is gone after its session)")
        if not dry_run:
            await work.end_open_transaction()
        with progress("reading") as told:
            plan = await work.plan(told)
        for line in here:
            note(f"{line}, to be stopped first")
        if plan.before == partitions:
            good(f"N = {partitions} is in force already; kafka.partitions must say so")
            return
        _tell(plan)
        if dry_run:
            note("nothing was changed (--dry-run)")
            return
        with progress("moving") as told:
            records = await work.run(plan, told)
        good(f"N = {partitions} is in force: {plural(records, 'record')} written in one transaction")
        good(f"now set kafka.partitions: {partitions} and start ingest and sample")


def _tell(plan: Plan) -> None:
    click.echo(f"N: {plan.before} → {plan.after}")
    for topic, count in plan.added.items():
        click.echo(f"  {topic}: {plan.found[topic]} → {plural(count, 'partition')}")
    unused = [topic for topic, count in plan.found.items() if count > plan.after]
    if unused:
        click.echo(f"  {', '.join(unused)}: partitions from {plan.after} on stay, unused (Kafka cannot remove them)")
    click.echo(f"  to be placed anew: at most {plural(sum(left.records for left in plan.left), 'record')} of spans and")
    click.echo(f"  logs that are not forwarded yet, {plural(sum(left.verdicts for left in plan.left), 'verdict')}")
