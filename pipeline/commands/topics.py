"""tailrace topics: check, create or print the internal topics."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import click

from pipeline.commands.console import FILE, PRINT, asking, bad, good, loaded, note, plural
from pipeline.commands.resize import resize
from pipeline.config import Config
from pipeline.configuration.yaml_tree import CONNECTIONS
from pipeline.kafka import topics as internal
from pipeline.kafka.admin import connected
from pipeline.printed import FORMS


class _Topics(click.Command):
    """`tailrace topics FILE`, and `tailrace topics resize FILE`."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """The context of the command that the first word names."""
        if args[:1] == [resize.name]:
            return resize.make_context(f"{info_name} {resize.name}", args[1:], parent, **extra)
        return super().make_context(info_name, args, parent, **extra)


@click.command(cls=_Topics)
@FILE
@click.option("--create", is_flag=True, help="Create the topics that are missing, then check all.")
@PRINT
def topics(file: str, create: bool, form: str | None) -> None:
    """Check, create or print the internal topics.

    Their partition counts, retention and timestamps (LogAppendTime) matter: create them before the first worker
    starts, and set auto.create.topics.enable=false. Existing topics are never changed. Exit code 0 if workers can run
    on all of them, 1 if not, 78 if the file is wrong.

    \b
      tailrace topics tailrace.yaml
      tailrace topics tailrace.yaml --create
      tailrace topics tailrace.yaml --print kafka-cli > topics.sh
      tailrace topics resize --help                    another number of partitions
    """
    if create and form:
        raise click.UsageError("--create and --print exclude each other")
    config = loaded(file, () if form is None else CONNECTIONS)
    if form:
        click.echo(FORMS[form].topics(config))
        return
    if not config.kafka.transactions:
        note("kafka.transactions is false: these brokers make topics on first use, nothing to check")
        return
    with asking(config):
        found = asyncio.run(_surveyed(config, create))
    wrong = {problem.topic for problem in found.problems}
    for spec in internal.topic_specs(config):
        if spec.name not in wrong:
            good(f"{spec.name}: {plural(spec.partitions, 'partition')}")
    if found.thin:
        note(internal.told_thin(found.thin))
    if found.short_decisions:
        note(found.short_decisions)
    if found.created:
        note(internal.told_created(found.created))
    for problem in found.problems:
        (bad if problem.stops else note)(str(problem))
    if any(problem.stops for problem in found.problems):
        sys.exit(1)


async def _surveyed(config: Config, create: bool) -> internal.Survey:
    async with connected(config) as admin:
        return await internal.survey(admin, config, create)
