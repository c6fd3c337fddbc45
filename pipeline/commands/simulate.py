"""tailrace simulate: other policies on traffic that was."""

from __future__ import annotations

import datetime
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
from pydantic import Field, ValidationError

from pipeline import process
from pipeline.commands.console import CONFIG, EX_CONFIG, asking, failed, loaded, progress
from pipeline.config import Config, Sampling
from pipeline.configuration.config_file import InvalidConfig, told
from pipeline.configuration.section_file import load_section
from pipeline.operating import told_simulation
from pipeline.operating.printable import printable
from processors.sampling.policies import Policies
from schemas.settings import Section, parse_duration

if TYPE_CHECKING:  # other commands do not wait for Faust
    from pipeline.operating.simulate import Report


class PolicyFile(Section):
    """A file of policies alone."""

    policies: Policies = Field(description="As `sampling.policies`.")


class SamplingFile(Section):
    """A file of the section `sampling` alone."""

    sampling: Sampling = Field(description="As in the configuration.")


class Moment(click.ParamType):
    """A duration ago (2h), an ISO 8601 time, or earliest: ms since the epoch."""

    name = "time"

    def convert(self, value: str | int, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Milliseconds; anything else is a usage error."""
        if isinstance(value, int):
            return value
        if value == "earliest":
            return 0
        try:
            return int((time.time() - parse_duration(value)) * 1000)
        except ValueError:
            pass
        try:
            found = datetime.datetime.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is neither a duration such as 2h, nor a time such as 2026-11-25T10:00Z", param, ctx)
        return int((found if found.tzinfo else found.replace(tzinfo=datetime.UTC)).timestamp() * 1000)


MOMENT = Moment()
POLICY_FILE = click.Path(path_type=Path)


@click.command("simulate")
@CONFIG
@click.option("--policies", required=True, type=POLICY_FILE, help="What to try: a file as described above.")
@click.option("--against", type=POLICY_FILE, help="What to compare with; default: the policies of --config.")
@click.option("--since", type=MOMENT, required=True, metavar="TIME", help="2h (ago), 2026-11-25T10:00Z or earliest.")
@click.option("--until", type=MOMENT, metavar="TIME", help="Likewise; default: now.")
@click.option("--json", "as_json", is_flag=True, help="The report as JSON.")
def simulate_command(
    file: str, policies: Path, against: Path | None, since: int, until: int | None, as_json: bool
) -> None:
    """Decide history again under other policies and say what would change.

    Reads what `sample` has read, from Kafka, and decides with its code in stream time. No group is joined, nothing is
    written or committed; what Kafka still retains can be replayed. The files of --policies and --against hold
    `policies:` alone, `sampling:` alone, or a whole configuration, of which only `sampling` is taken. Reported are
    kept traces, spans and bytes, the overlap of the policies, what is newly lost and newly kept with examples, and
    traces with a failed span or with a log of ERROR or above that are missed. Without --against the policies of
    --config are also compared with what the workers decided. Exit code 0, 1 if Kafka cannot be asked or has no records
    of that time, 78 if a file is wrong.

    \b
      tailrace simulate --config tailrace.yaml --policies new.yaml --since 2h
      tailrace simulate --config tailrace.yaml --policies new.yaml --against old.yaml --since 2h --json
    """
    config = loaded(file)
    new = _sampling(policies, config)
    old = config.sampling if against is None else _sampling(against, config)
    if until is not None and until <= since:
        raise click.UsageError("--until must be later than --since")
    with asking(config):
        report = process.run(_shown(config, new, old, since, until))
    if as_json:
        click.echo(json.dumps(told_simulation.document(report), ensure_ascii=False, indent=2))
    else:
        click.echo("\n".join(map(printable, told_simulation.lines(report))))


async def _shown(config: Config, new: Sampling, old: Sampling, since: int, until: int | None) -> Report:
    """The simulation, with a progress bar on standard error."""
    from pipeline.operating.simulate import simulate

    with progress("replaying") as told:
        return await simulate(config, new, old, since, until, told)


def _sampling(path: Path, config: Config) -> Sampling:
    """The `sampling` of a file, or its problems on standard error and exit code 78."""
    try:
        keys = _top_level(path)
        if "kafka" in keys:
            return loaded(str(path)).sampling
        if "sampling" in keys:
            return load_section(path, SamplingFile, os.environ)[0].sampling
        if "processors" in keys and "policies" not in keys:
            failed(f"{path}: is a Collector's file: `tailrace convert otelcol {path}` makes a configuration of it")
            sys.exit(EX_CONFIG)
        found, tree = load_section(path, PolicyFile, os.environ)
        try:
            return Sampling.model_validate(dict(config.sampling) | {"policies": found.policies})
        except ValidationError as error:  # rules of all policies together
            rules = [each for details in error.errors() for each in told(details)]
            tree.problems += [tree.problem(path, tree.as_written(path, rule)) for path, rule in rules]
            raise InvalidConfig(str(path), tree.problems) from None
    except InvalidConfig as error:
        for problem in error.problems:
            failed(f"{path}:{problem}")
        sys.exit(EX_CONFIG)


def _top_level(path: Path) -> set[str]:
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return set()  # load_section says why
    return {line.split(":")[0] for line in lines if line[:1].isalpha()}
