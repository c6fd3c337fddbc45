"""tailrace convert: another system's configuration as Tailrace's."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from pipeline.commands.console import EX_CONFIG, failed, note
from pipeline.configuration.config_file import InvalidConfig
from pipeline.configuration.convert import convert as converted
from pipeline.configuration.convert import written
from schemas.errors import ConfigError


@click.group("convert")
def convert() -> None:
    """Make a configuration out of that of another system.

    \b
      tailrace convert otelcol collector.yaml > tailrace.yaml
    """


@convert.command("otelcol")
@click.argument("file", type=click.Path())
@click.option("--processor", metavar="tail_sampling/NAME", help="Which one, if there are several.")
def otelcol(file: str, processor: str | None) -> None:
    """Print the configuration that decides as the tail_sampling processor of a Collector does.

    FILE is the Collector's configuration or a part of it: the processor's block will do. It may be in a ConfigMap, in
    an OpenTelemetryCollector or in a chart's values. Brokers, topics and exporters of its pipelines are taken over, and
    those of pipelines of logs and metrics that read Kafka. What has no counterpart is named on standard error with its
    line; policies and conditions that are left out are a comment at the end of the output, too. Secrets that FILE holds
    are not printed: a line with ! names the variable that stands for one.

    \b
    Exit code 0: nothing is missing that would matter (lines with ! do not), and `tailrace check` takes the result.
              1: something is, which the lines with ✗ name; the rest is printed.
             78: FILE cannot be read, or there is no tail_sampling processor in it.

    \b
      tailrace convert otelcol collector.yaml > tailrace.yaml
      tailrace check tailrace.yaml
    """
    try:
        found = converted(Path(file).read_text("utf-8"), processor)
    except InvalidConfig as error:
        for problem in error.problems:
            click.echo(f"{file}:{problem}", err=True)
        sys.exit(EX_CONFIG)
    except OSError as error:
        click.echo(f"{file}: cannot be read: {error.strerror}", err=True)
        sys.exit(EX_CONFIG)
    except (ConfigError, UnicodeDecodeError) as error:
        click.echo(f"{file}: {error}", err=True)
        sys.exit(EX_CONFIG)
    click.echo(written(found.config, found.left_out), nl=False)
    for gap in found.gaps:
        if gap.matters:
            failed(f"{file}:{gap}")
        else:
            note(f"{file}:{gap}", err=True)
    sys.exit(int(any(gap.matters for gap in found.gaps)))
