"""The command line: the list of its commands, which are in pipeline/commands."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from pipeline.commands.acls import acls
from pipeline.commands.canary import canary
from pipeline.commands.cardinality import cardinality
from pipeline.commands.check import check
from pipeline.commands.config import config_group
from pipeline.commands.convert import convert
from pipeline.commands.demo import demo
from pipeline.commands.dlq import dlq
from pipeline.commands.explain import explain_command
from pipeline.commands.restore import restore_command
from pipeline.commands.simulate import simulate_command
from pipeline.commands.size import size
from pipeline.commands.test import test
from pipeline.commands.top import top
from pipeline.commands.topics import topics
from pipeline.commands.worker import worker
from pipeline.identity import version


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(version(), prog_name="tailrace", message="%(prog)s %(version)s")
def cli() -> None:
    """Tail sampling, log correlation and cardinality limits as workers beside Kafka.

    \b
      tailrace demo                                    see it work, nothing else needed
      tailrace check tailrace.yaml --connect           is everything right, is everything there
      tailrace convert otelcol collector.yaml          your tail_sampling processor as a configuration
      tailrace topics tailrace.yaml --create           make the internal topics
      tailrace acls tailrace.yaml --print kafka-cli    what the workers' user must be allowed to do
      tailrace test --config tailrace.yaml cases.yaml  do the policies do what they should
      tailrace simulate --config tailrace.yaml --policies new.yaml --since 2h    what would other policies keep
      tailrace worker --config tailrace.yaml --role all
      tailrace explain --config tailrace.yaml 4bf92f3577b34da6a3ce929d0e0e4736     why it was kept or dropped
      tailrace restore --config tailrace.yaml 4bf92f3577b34da6a3ce929d0e0e4736     keep it after all
      tailrace cardinality --config tailrace.yaml      how full the limits are, and who is to blame
      tailrace size --spans-per-second 20000           partitions, workers, memory and disk for a load
      tailrace dlq list tailrace.yaml                  what could not be handled, and why
      tailrace canary --config tailrace.yaml --once    does a trace arrive everywhere?
      tailrace top                                     what workers do right now
    """


for command in (check, convert, test, simulate_command, explain_command, restore_command, topics, acls, worker, top):
    cli.add_command(command)
for command in (cardinality, size, dlq, canary, demo, config_group):
    cli.add_command(command)

main: Callable[..., Any] = cli
"""The console script."""

if __name__ == "__main__":
    main(prog_name="tailrace")
