"""The command line: the list of its commands, which are in pipeline/commands."""

from __future__ import annotations

import io
import os
import signal
import sys
from importlib import import_module
from typing import Any

import click

from pipeline.watching.identity import version

COMMANDS = (
    *("check", "convert", "test", "simulate", "explain", "restore", "topics", "acls", "worker", "top"),
    *("cardinality", "size", "dlq", "canary", "demo", "config"),
)


class Commands(click.Group):
    """Each command is in the module of its name, imported when it is asked for: a worker stays for weeks, and what the
    others import would take 10 MiB of it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        if cmd_name == "worker" and sys.argv[1:2] == ["worker"]:  # of a process that is one: not where help is listed
            signals_while_it_begins()
        found = vars(import_module(f"pipeline.commands.{cmd_name}")).values()
        return next(each for each in found if isinstance(each, click.Command) and each.name == cmd_name)


def signals_while_it_begins() -> None:
    """What a worker imports takes a second, after which it has handlers of its own.

    Until then SIGTERM ends it with 0, or Kubernetes counts a failure, and `systemctl reload` does not end it.
    """
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))  # a SystemExit would be lost in callbacks of importlib
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
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


def main(*words: Any, **settings: Any) -> None:
    """The console script."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a Latin-1 terminal has no ✓
    if os.environ.get("NO_COLOR"):  # https://no-color.org
        settings["color"] = False
    cli(*words, **settings)


if __name__ == "__main__":
    main(prog_name="tailrace")
