"""What all commands share: loading the file, marks before lines, exit codes."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar, cast

import click
from aiokafka.errors import KafkaError

from pipeline.config import Config
from pipeline.configuration.config_file import InvalidConfig, load
from pipeline.configuration.yaml_tree import Key
from pipeline.kafka.overheard import Overheard
from pipeline.printed import FORMS
from pipeline.watching.settings import worker_rule
from schemas.errors import ConfigError, TailraceError, Unavailable
from schemas.kafka_client import told

Command = TypeVar("Command", bound=Callable[..., Any])

EX_CONFIG = 78
"""Exit code of a configuration that cannot be run (sysexits.h; Vector uses it too)."""


class _File(click.Argument):
    """An argument in front of all others, which `--config` may give as well: other commands take it so."""

    def handle_parse_result(
        self, ctx: click.Context, opts: Mapping[str, Any], args: list[str]
    ) -> tuple[Any, list[str]]:
        """What the parser found, of which the arguments after the file are one place off if an option gave it."""
        found = cast("dict[str, Any]", opts)  # in which the arguments after this one look
        if isinstance(file := found.pop(_OTHERWISE, None), str):
            names = [each.name for each in ctx.command.params if isinstance(each, click.Argument) and each.name]
            given = [file, *(text for name in names if isinstance(text := found.get(name), str))]
            if len(given) > len(names):
                raise click.UsageError("the configuration file is there twice: FILE and --config are the same", ctx)
            found.update(zip(names, given, strict=False))
        return super().handle_parse_result(ctx, opts, args)


_OTHERWISE = "otherwise"


def FILE(command: Command) -> Command:
    """The configuration file as the argument of a command."""
    otherwise = click.option("--config", _OTHERWISE, type=click.Path(), hidden=True, expose_value=False)
    return otherwise(click.argument("file", cls=_File, type=click.Path(), is_eager=True)(command))


CONFIG = click.option("--config", "file", required=True, type=click.Path(), help="The configuration file.")
"""The same as an option."""

TOKEN = click.option("--token", envvar="TAILRACE_TOKEN", default="", help="telemetry.token of these workers.")
"""What workers that are asked want to see."""


def words(_: click.Context, __: click.Parameter, given: tuple[str, ...]) -> list[str]:
    """The values of an option that takes `a,b` and may be given again. One without any is a usage error."""
    found = [word.strip() for part in given for word in part.split(",") if word.strip()]
    if given and not found:
        raise click.BadParameter("is empty: was a variable not set?")
    return found


class WorkerUrl(click.ParamType):
    """The address of a worker's pages."""

    name = "URL"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """The address; anything else is a usage error, which shows nothing that may be a password."""
        if rule := worker_rule(value):
            self.fail(rule if "@" in value or "?" in value else f"{value} {rule}", param, ctx)
        return value


ROLES = click.option(
    "--role", "names", multiple=True, default=["all"], callback=words, metavar="ROLE[,ROLE…]",
    help="Only what these roles need, as in `tailrace worker` (default: all).",
)  # fmt: skip
"""The roles that a command is about."""

PRINT = click.option(
    "--print", "form", type=click.Choice(list(FORMS)), help="Print instead, for whoever may make them."
)
"""The way in which a command prints instead of asking the brokers."""

_PLURALS = {"policy": "policies"}


def good(text: str) -> None:
    """A line for what is as it must be."""
    click.echo(f"{click.style('✓', fg='green')} {text}")


def bad(text: str) -> None:
    """A line for what is found to be wrong."""
    click.echo(f"{click.style('✗', fg='red')} {text}")


def failed(text: str) -> None:
    """A line on standard error for why there is no answer."""
    click.echo(f"{click.style('✗', fg='red')} {text}", err=True)


def note(text: str, err: bool = False) -> None:
    """A line for what is allowed but may surprise."""
    click.echo(f"{click.style('!', fg='yellow')} {text}", err=err)


@contextlib.contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error, if that is a terminal; it is told records read and records in all."""
    from rich.console import Console  # for which no other command should wait
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def loaded(file: str, missing: Sequence[Key] = ()) -> Config:
    """The configuration, or its problems on standard error and exit code 78. `missing` as in `load`."""
    try:
        return load(file, os.environ, missing)
    except InvalidConfig as error:
        for problem in error.problems:
            failed(f"{file}:{problem}")
        click.echo(plural(len(error.problems), "problem"), err=True)
        sys.exit(EX_CONFIG)


@contextlib.contextmanager
def asking(config: Config) -> Iterator[None]:
    """For what asks brokers: why there is no answer is a line on standard error; exit code 1, of a ConfigError 78."""
    where = f"kafka {', '.join(config.kafka.bootstrap_servers)}: "
    try:
        with Overheard() as overheard:
            yield
    except (KafkaError, Unavailable, OSError) as error:  # TimeoutError is one
        failed(overheard.after(where + told(error).removeprefix(where)))
        sys.exit(1)
    except TailraceError as error:
        failed(str(error))
        sys.exit(EX_CONFIG if isinstance(error, ConfigError) else 1)


def plural(count: int, noun: str) -> str:
    """A count and its noun.

    >>> plural(2, "policy")
    '2 policies'
    """
    return f"{count} {noun if count == 1 else _PLURALS.get(noun, noun + 's')}"
