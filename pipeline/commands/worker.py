"""tailrace worker: run roles until SIGTERM."""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path

import click

from pipeline.commands.console import CONFIG, EX_CONFIG, failed, loaded, words
from pipeline.config import Config, parse_start, with_live
from pipeline.configuration.config_file import load
from pipeline.configuration.reload import File
from pipeline.watching.logs import configure
from schemas.errors import ConfigError

log = logging.getLogger(__name__)


def _since(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    try:
        return None if value is None else parse_start(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None


@click.command()
@CONFIG
@click.option(
    "--role", "names", required=True, multiple=True, callback=words, metavar="ROLE[,ROLE…]",
    help="ingest, sample, aggregate, sink.NAME for each key of sinks; `sinks` and `all` stand for several.",
)  # fmt: skip
@click.option(
    "--since", callback=_since, metavar="WHERE",
    help="Where a new group begins in raw topics: 15m (ago), latest or earliest. Wins over kafka.start.",
)  # fmt: skip
@click.option(
    "--signals", "signals", multiple=True, callback=words, metavar="SIGNAL[,SIGNAL…]",
    help="With --role ingest: read the raw topics of these signals only, each signal in a consumer group of its own.",
)  # fmt: skip
@click.option(
    "--accept-loss",
    is_flag=True,
    help="Go on after what is lost, and count it: with --role sample records that retention deleted before they were "
    "forwarded, and batches of raw topics that stay corrupt.",
)
@click.option("--live", is_flag=True, help="Serve the live page at /live, as telemetry.live.enabled does.")
def worker(file: str, names: list[str], since: str | None, signals: list[str], accept_loss: bool, live: bool) -> None:
    """Run roles until SIGTERM.

    More workers with the same role share its partitions. A worker waits for Kafka and its topics; on SIGTERM it
    finishes its batch, commits and leaves its groups. Logs are JSON lines on standard error; /metrics, /healthz,
    /readyz and, if it is on, /live are served on telemetry.host:telemetry.port. Exit code 0 after SIGTERM, 1 if a role
    failed, 78 if the configuration is wrong.

    What changes in `sampling`, `logs` or the limits of `metrics` is taken over within seconds, or at once on SIGHUP; a
    file that is wrong, or that changes anything else, is refused: /readyz and the log say why, and the worker goes on.

    \b
      tailrace worker --config tailrace.yaml --role all
      tailrace worker --config tailrace.yaml --role ingest,sample --since 15m
      tailrace worker --config tailrace.yaml --role ingest --signals traces
      tailrace worker --config tailrace.yaml --role sink.elasticsearch --live
    """
    from pipeline import process, roles
    from pipeline import worker as working

    config = loaded(file)
    try:
        config = with_live(config) if live else config
        chosen = roles.expand(config, names)
        apart = roles.check_signals(config, chosen, signals)
        if not chosen:
            raise ConfigError("--role sinks: this configuration has none (`sinks`)")
    except ConfigError as error:
        failed(str(error))
        sys.exit(EX_CONFIG)

    reads_raw = "sample" if config.regroup == "never" else "ingest"

    def again() -> Config:
        found = load(file, os.environ)
        return with_live(found) if live else found

    configure(config.telemetry.log_level)
    if since is not None and not {reads_raw, "ingest"} & set(chosen):
        failed(f"--since: none of {', '.join(chosen)} reads raw topics, {reads_raw} does")
        sys.exit(EX_CONFIG)
    if reads_raw in chosen and since is None and "start" not in config.kafka.model_fields_set:
        log.warning(
            "kafka.start is not set: a new group begins with what arrives from now on (latest) and leaves what is in "
            "the raw topics; set kafka.start or --since 15m"
        )
    try:
        sys.exit(process.run(working.run(config, chosen, since, apart, File(Path(file), again), accept_loss)))
    except ConfigError as error:
        log.error("the configuration cannot be run", extra={"error": str(error)})
        sys.exit(EX_CONFIG)
