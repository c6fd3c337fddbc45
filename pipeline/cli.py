"""The command line: check, topics, worker, demo, config print."""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import click
import yaml

from pipeline import connect as connecting
from pipeline import topics as internal
from pipeline.config import Config, parse_start, sink_kind
from pipeline.config_file import InvalidConfig, load
from pipeline.logs import REDACTED, configure
from pipeline.topic_commands import acl_commands, commands
from schemas.errors import ConfigError, TailraceError

EX_CONFIG = 78
"""Exit code of a configuration that cannot be run (sysexits.h; Vector uses it too)."""

_SECRET_HEADERS = ("auth", "token", "key", "secret", "cookie")

log = logging.getLogger(__name__)


def _version() -> str:
    try:
        return version("tailrace")
    except PackageNotFoundError:  # a checkout that is on the path but not installed
        return "unknown (not installed)"


def _good(text: str) -> None:
    click.echo(f"{click.style('✓', fg='green')} {text}")


def _bad(text: str) -> None:
    click.echo(f"{click.style('✗', fg='red')} {text}")


def _note(text: str) -> None:
    click.echo(f"{click.style('!', fg='yellow')} {text}")


def _loaded(file: str) -> Config:
    """The configuration, or its problems on standard error and exit code 78."""
    try:
        return load(file, os.environ)
    except InvalidConfig as error:
        for problem in error.problems:
            click.echo(f"{click.style('✗', fg='red')} {file}:{problem}", err=True)
        click.echo(_plural(len(error.problems), "problem"), err=True)
        sys.exit(EX_CONFIG)


_PLURALS = {"input": "inputs", "partition": "partitions", "policy": "policies", "problem": "problems"}


def _plural(count: int, noun: str) -> str:
    return f"{count} {noun if count == 1 else _PLURALS[noun]}"


_FILE = click.argument("file", type=click.Path(dir_okay=False))


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(_version(), prog_name="tailrace", message="%(prog)s %(version)s")
def cli() -> None:
    """Tail sampling, log correlation and cardinality limits as workers beside Kafka.

    \b
      tailrace demo                                    see it work, nothing else needed
      tailrace check tailrace.yaml --connect           is everything right, is everything there
      tailrace topics tailrace.yaml --create           make the internal topics
      tailrace worker --config tailrace.yaml --role all
    """


@cli.command()
@_FILE
@click.option("--connect", is_flag=True, help="Also try the brokers, the topics and every sink, with timings.")
def check(file: str, connect: bool) -> None:
    """Say everything that is wrong with a configuration file.

    Each problem has line, column, key and rule. Exit code 0, or 78 if there is a problem.

    \b
      tailrace check tailrace.yaml
      KAFKA_PASSWORD=... tailrace check tailrace.yaml --connect
    """
    config = _loaded(file)
    named = ", ".join(config.sinks) or "none"
    counts = f"{_plural(len(config.inputs), 'input')}, {_plural(len(config.sampling.policies), 'policy')}"
    _good(f"{file}: {counts}, sinks: {named}")
    for note in _notes(config):
        _note(note)
    if connect and not asyncio.run(_connected(config)):
        sys.exit(EX_CONFIG)


def _notes(config: Config) -> list[str]:
    """What is allowed but may surprise."""
    notes = []
    if "start" not in config.kafka.model_fields_set:
        notes.append("kafka.start is not set: a new group begins with what arrives from now on (latest)")
    if not config.kafka.transactions:
        notes.append("kafka.transactions is false: at-least-once; internal topics are neither made nor checked")
    if not config.sinks:
        notes.append("sinks is empty: nothing leaves Kafka")
    kinds = {sink_kind(name) for name in config.sinks}
    if config.sinks and config.metrics.span_metrics.enabled and "prometheus" not in kinds:
        notes.append("metrics.span_metrics are counted but no prometheus sink sends them")
    if not any(item.signal == "traces" for item in config.inputs):
        notes.append("inputs has no traces: nothing will be sampled")
    return notes


async def _connected(config: Config) -> bool:
    failed = 0
    async for finding in connecting.connect(config):
        (_good if finding.ok else _bad)(str(finding))
        failed += not finding.ok
    return failed == 0


@cli.command()
@_FILE
@click.option("--create", is_flag=True, help="Create the topics that are missing, then check all.")
@click.option("--print", "printed", is_flag=True, help="Print commands for whoever may create topics and grant ACLs.")
def topics(file: str, create: bool, printed: bool) -> None:
    """Check, create or print the internal topics.

    Their partition counts, retention and timestamps (LogAppendTime) matter: create them before the first worker
    starts, and set auto.create.topics.enable=false. Existing topics are never changed. Exit code 0 if all are as they
    must be, 1 if not, 78 if the file is wrong.

    \b
      tailrace topics tailrace.yaml
      tailrace topics tailrace.yaml --create
      tailrace topics tailrace.yaml --print > topics.sh
    """
    if create and printed:
        raise click.UsageError("--create and --print exclude each other")
    config = _loaded(file)
    if printed:
        click.echo("\n".join(commands(config) + acl_commands(config)))
        return
    if not config.kafka.transactions:
        _note("kafka.transactions is false: these brokers make topics on first use, nothing to check")
        return
    try:
        problems = asyncio.run(internal.ensure(config) if create else internal.check(config))
    except TailraceError as error:
        _bad(str(error))
        sys.exit(EX_CONFIG if isinstance(error, ConfigError) else 1)
    wrong = {problem.topic for problem in problems}
    for spec in internal.topic_specs(config):
        if spec.name not in wrong:
            _good(f"{spec.name}: {_plural(spec.partitions, 'partition')}")
    for problem in problems:
        _bad(str(problem))
    if problems:
        sys.exit(1)


def _since(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    try:
        return None if value is None else parse_start(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@cli.command()
@click.option("--config", "file", required=True, type=click.Path(dir_okay=False), help="The configuration file.")
@click.option(
    "--role", "names", required=True, multiple=True, metavar="ROLE[,ROLE…]",
    help="ingest, sample, aggregate, sink.NAME for each key of sinks; `sinks` and `all` stand for several.",
)  # fmt: skip
@click.option(
    "--since", callback=_since, metavar="WHERE",
    help="Where a new group begins in raw topics: 15m (ago), latest or earliest. Wins over kafka.start.",
)  # fmt: skip
def worker(file: str, names: tuple[str, ...], since: str | None) -> None:
    """Run roles until SIGTERM.

    More workers with the same role share its partitions. A worker waits for Kafka and its topics; on SIGTERM it
    finishes its batch, commits and leaves its groups. Logs are JSON lines on standard error; /metrics, /healthz and
    /readyz are served on telemetry.host:telemetry.port. Exit code 0 after SIGTERM, 1 if a role failed, 78 if the
    configuration is wrong.

    \b
      tailrace worker --config tailrace.yaml --role all
      tailrace worker --config tailrace.yaml --role ingest,sample --since 15m
      tailrace worker --config tailrace.yaml --role sink.elasticsearch
    """
    from pipeline import roles
    from pipeline import worker as working

    config = _loaded(file)
    wanted = [name.strip() for part in names for name in part.split(",") if name.strip()]
    try:
        chosen = roles.expand(config, wanted)
    except ConfigError as error:
        _bad(str(error))
        sys.exit(EX_CONFIG)
    configure(config.telemetry.log_level)
    if "ingest" in chosen and since is None and "start" not in config.kafka.model_fields_set:
        log.warning(
            "kafka.start is not set: a new group begins with what arrives from now on (latest) and leaves what is in "
            "the raw topics; set kafka.start or --since 15m"
        )
    try:
        sys.exit(asyncio.run(working.run(config, chosen, since)))
    except ConfigError as error:
        log.error("the configuration cannot be run", extra={"error": str(error)})
        sys.exit(EX_CONFIG)


@cli.command(
    add_help_option=False,
    context_settings={"ignore_unknown_options": True, "allow_extra_args": True, "allow_interspersed_args": False},
)
@click.pass_context
def demo(context: click.Context) -> None:
    """See it work: embedded broker, generated traffic, all roles, a live table.

    \b
      tailrace demo
      tailrace demo --seconds 20 --json
    """
    # Imported only now: confluent-kafka, whose wheel carries the embedded broker, is an extra.
    try:
        command = importlib.import_module("pipeline.demo").command
    except ModuleNotFoundError as error:
        if error.name is None or not error.name.startswith("confluent_kafka"):
            raise
        raise click.ClickException("the demo needs its extra: pip install 'tailrace[demo]'") from None
    command.main(args=context.args, prog_name="tailrace demo")


@cli.group("config")
def config_group() -> None:
    """Look at a configuration as the workers see it.

    \b
      tailrace config print tailrace.yaml
    """


@config_group.command("print")
@_FILE
def config_print(file: str) -> None:
    """Print the effective configuration: defaults and interpolated values filled in, secrets blotted out.

    \b
      tailrace config print tailrace.yaml
    """
    click.echo(yaml.safe_dump(effective(_loaded(file)), sort_keys=False, allow_unicode=True, width=120), nl=False)


def effective(config: Config) -> dict[str, Any]:
    """Everything that is set or has a default, as plain data without secrets."""
    data: dict[str, Any] = config.model_dump(mode="json", by_alias=True, exclude_none=True)
    for sink in data["sinks"].values():
        sink["headers"] = {
            name: REDACTED if any(word in name.lower() for word in _SECRET_HEADERS) else value
            for name, value in sink["headers"].items()
        }
    return data


main: Callable[..., Any] = cli
"""The console script."""

if __name__ == "__main__":
    main(prog_name="tailrace")
