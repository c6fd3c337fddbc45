"""tailrace canary: a synthetic trace through everything, and whether it arrives."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import sys

import click

from pipeline.commands.console import CONFIG, EX_CONFIG, bad, failed, good, loaded
from pipeline.config import Config
from pipeline.kafka.overheard import Overheard
from pipeline.kafka.topics import canary_topics
from pipeline.watching.logs import configure
from schemas.errors import ConfigError, Unavailable


@click.command()
@CONFIG
@click.option("--once", is_flag=True, help="Send one trace, say what became of it, and end.")
def canary(file: str, once: bool) -> None:
    """Send a trace with an error and a log every ten seconds, and look for it in the backends.

    It goes into the raw topics as any trace does; Jaeger, Elasticsearch and Prometheus are asked for it where the
    section `canary` says. How complete and how fresh each is, is on /metrics of canary.host:canary.port. Needs a policy
    that keeps errors. Runs until SIGTERM. Exit code 0; with --once 1 if the trace is not complete everywhere in time;
    78 if the configuration is wrong.

    \b
      tailrace canary --config tailrace.yaml --once
      tailrace canary --config tailrace.yaml
    """
    config = loaded(file)
    try:
        canary_topics(config)
        sys.exit(asyncio.run(_once(config) if once else _run(config)))
    except ConfigError as error:
        failed(f"{file}: {error}")
        sys.exit(EX_CONFIG)
    except Unavailable as error:
        failed(str(error))
        sys.exit(1)


async def _once(config: Config) -> int:
    from pipeline.canary.backends import lookers
    from pipeline.canary.watch import Watch

    watch = Watch(config, lookers(config))
    try:
        with Overheard() as overheard:
            findings = await watch.once()
    finally:
        await watch.close()
    for finding in findings:
        unsent = finding.outcome == "unsent"
        (good if finding.outcome == "complete" else bad)(overheard.after(str(finding)) if unsent else str(finding))
    return int(any(finding.outcome != "complete" for finding in findings))


async def _run(config: Config) -> int:
    from pipeline.canary.backends import lookers
    from pipeline.canary.watch import Watch
    from pipeline.watching.serving import Server

    assert config.canary is not None
    configure(config.telemetry.log_level)
    watch = Watch(config, lookers(config))
    address = {"host": config.canary.host, "port": config.canary.port}
    server = Server(config.telemetry.model_copy(update=address), lambda: {"canary": True}, section="canary")
    await server.start()
    running = asyncio.create_task(watch.run())
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, running.cancel)
    try:
        with contextlib.suppress(asyncio.CancelledError):
            await running
    finally:
        await watch.close()
        await server.stop()
    return 0
