"""tailrace acls: check or print the rights that roles need."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence

import click

from pipeline import rights
from pipeline.commands.console import FILE, PRINT, ROLES, asking, bad, good, loaded, note, plural
from pipeline.config import Config
from pipeline.configuration.yaml_tree import CONNECTIONS
from pipeline.kafka import tools
from pipeline.kafka.acls import Acl
from pipeline.kafka.admin import connected
from pipeline.kafka.granted import missing, unguarded
from pipeline.printed import FORMS


@click.command()
@FILE
@ROLES
@click.option(
    "--user", metavar="NAME",
    help="With --print: who gets the rights. {role} in it stands for the role's name: a user for each role. "
    "Default: kafka.security.username.",
)  # fmt: skip
@PRINT
def acls(file: str, names: list[str], user: str | None, form: str | None) -> None:
    """Check or print the rights that roles need on the brokers.

    They are the fewest with which the roles work. Among the roles, `topics` stands for whoever runs
    `tailrace topics FILE --create`, `canary` for `tailrace canary`, `dlq` for `tailrace dlq` and `resize` for
    `tailrace topics resize`. Without --print the brokers are asked what the configured user may do; nothing is
    written. Exit code 0 if it may do all of it, 1 if not, 78 if the file or a role is wrong.

    \b
      tailrace acls tailrace.yaml
      tailrace acls tailrace.yaml --role all,topics,canary,dlq --print kafka-cli > acls.sh
      tailrace acls tailrace.yaml --user 'tailrace-{role}' --print strimzi | kubectl apply -f -
    """
    if user and not form:
        raise click.UsageError("--user goes with --print: what is checked is the user of the configuration")
    if user and user.startswith("User:"):
        raise click.BadParameter(f"{user} without its User:, which Kafka puts before it", param_hint="--user")
    config = loaded(file, () if form is None else CONNECTIONS)
    if form:
        with asking(config):
            printed = FORMS[form].acls(config, rights.by_user(config, names, user))
        click.echo(printed)
        return
    if not config.kafka.transactions:
        note("kafka.transactions is false: these brokers have no ACLs, nothing to check")
        return
    with asking(config):
        wanted = rights.needed(config, names)
        lacking, open_to_all = asyncio.run(_asked(config, wanted))
    for acl in wanted:
        if acl not in lacking:
            good(str(acl))
    for acl in lacking:
        bad(f"{acl}: {tools.remedy(config.kafka, acl)}")
    click.echo(f"{plural(len(wanted) - len(lacking), 'right')}, {len(lacking)} missing")
    if open_to_all:
        note("these brokers check no rights: they have no authorizer (`authorizer.class.name`)")
    if lacking:
        sys.exit(1)


async def _asked(config: Config, wanted: Sequence[Acl]) -> tuple[list[Acl], bool]:
    """What is missing, and whether nothing is because everybody may do everything."""
    async with connected(config) as admin:
        lacking = await missing(admin, wanted)
        return lacking, not lacking and await unguarded(admin)
