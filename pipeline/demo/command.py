"""`tailrace demo`: the command line of the demo."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import secrets
import shutil
import signal
import sys
import webbrowser
from collections.abc import Iterator, Mapping
from typing import Any

import click
import orjson
from aiokafka.errors import KafkaError
from rich.console import Console
from rich.live import Live

from pipeline.demo.destinations import Real
from pipeline.demo.ledger import Audit, Holdings
from pipeline.demo.run import Options, Run, prepared
from pipeline.demo.screen import line, screen
from pipeline.demo.summary import summary
from pipeline.watching import told_letters
from pipeline.watching.logs import configure
from schemas.errors import TailraceError
from schemas.kafka_client import told

REFRESH_SECONDS = 0.5
LINE_SECONDS = 2.0
REMOTE_SECONDS = 3.0  # between two readings of real servers, which cost a request per trace
DEFAULT_SECONDS = 20.0
"""Where nobody can press Ctrl-C."""


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.option(
    "--seconds", type=click.FloatRange(min=5), default=None,
    help="How long traffic flows. Default: until Ctrl-C on a terminal, 20 otherwise.",
)  # fmt: skip
@click.option("--rate", type=click.FloatRange(50, 20_000), default=400, show_default=True, help="Spans per second.")
@click.option("--seed", type=click.IntRange(0), default=None, help="The same seed brings the same requests.")
@click.option(
    "--open/--no-open",
    "opening",
    default=None,
    help="Open the live page in a browser. Default: on a terminal of a machine with a screen.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object at the end and nothing else.")
@click.option("--kafka", metavar="HOST:PORT", default=None, help="A real Kafka instead of the embedded broker.")
@click.option("--jaeger", metavar="URL", default=None, help="A real Jaeger, where its pages are (…:16686).")
@click.option(
    "--jaeger-otlp", metavar="URL", default=None, help="Where that Jaeger takes OTLP/HTTP; default: its port 4318."
)
@click.option("--elasticsearch", metavar="URL", default=None, help="A real Elasticsearch.")
@click.option("--prometheus", metavar="URL", default=None, help="A real Prometheus with its remote-write receiver on.")
def command(
    seconds: float | None, rate: float, seed: int | None, opening: bool | None, as_json: bool, kafka: str | None,
    jaeger: str | None, jaeger_otlp: str | None, elasticsearch: str | None, prometheus: str | None,
) -> None:  # fmt: skip
    """See Tailrace work: a shop's traffic through every role, checked against what was really sent.

    It prints the address of the live page: the same as the table on the terminal, and the kept traces with their logs.

    Needs nothing but Python: an embedded broker and stand-ins for Jaeger, Elasticsearch and Prometheus run in this
    process, unless real ones are named. Exit code 0 if everything that arrived is right, 1 with the reasons on
    standard error if not.

    \b
      tailrace demo
      tailrace demo --seconds 20 --json
      tailrace demo --kafka localhost:9092 --jaeger http://localhost:16686
    """
    interactive = not as_json and sys.stdout.isatty()
    options = Options(
        seconds=seconds or (math.inf if interactive else DEFAULT_SECONDS),
        rate=rate,
        seed=secrets.randbits(32) if seed is None else seed,
        real=Real(kafka, jaeger, jaeger_otlp, elasticsearch, prometheus),
    )
    try:
        opening = interactive and has_screen(sys.platform, os.environ) if opening is None else opening
        run, holdings, audit = asyncio.run(_run(options, interactive, as_json, opening))
    except (TailraceError, KafkaError, OSError) as error:
        raise click.ClickException(told(error)) from error
    if as_json:
        click.echo(orjson.dumps(figures(run, audit)))
    else:
        width = shutil.get_terminal_size().columns if interactive else None
        click.echo("\n" + summary(run, holdings, audit, width))
    for violation in audit.violations:
        click.echo(f"not right: {violation}", err=True)
    sys.exit(1 if audit.violations else 0)


def figures(run: Run, audit: Audit) -> dict[str, Any]:
    """What `--json` prints; `ok` is what the exit code says."""
    sent = {"broken_messages": run.ledger.dead_letters, "ok": not audit.violations}
    return audit.figures._asdict() | sent


def has_screen(platform: str, environ: Mapping[str, str]) -> bool:
    """Whether a browser that is opened would be seen: a text browser would take the terminal."""
    if environ.get("SSH_CONNECTION"):
        return False
    return platform in ("darwin", "win32") or bool(environ.get("DISPLAY") or environ.get("WAYLAND_DISPLAY"))


async def _run(options: Options, interactive: bool, as_json: bool, opening: bool) -> tuple[Run, Holdings, Audit]:
    warnings = _Warnings()
    configure("WARNING")
    logging.getLogger(told_letters.__name__).setLevel(logging.ERROR)  # broken messages are sent on purpose
    async with prepared(options, lambda text: click.echo(text, err=as_json)) as run:
        click.echo(f"live page: {run.page}", err=as_json)
        if opening:
            await asyncio.to_thread(webbrowser.open, run.page)
        with _stoppable(run):
            shown = asyncio.create_task(_show(run, interactive, as_json, warnings))
            try:
                audit = await _until_failure(run)
            finally:
                shown.cancel()
                await asyncio.gather(shown, return_exceptions=True)
        holdings = await run.holdings()
    if interactive and audit.violations:
        for text in warnings.texts:
            click.echo(text, err=True)
    return run, holdings, audit


async def _until_failure(run: Run) -> Audit:
    """Send and drain, unless a role fails: raises what it failed with."""

    async def whole() -> Audit:
        await run.send()
        return await run.drain()

    work, failure = asyncio.create_task(whole()), asyncio.create_task(run.worker.wait())
    await asyncio.wait({work, failure}, return_when=asyncio.FIRST_COMPLETED)
    if failure.done() and not work.done():
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
        failure.result()
        raise TailraceError("a role stopped")
    failure.cancel()
    return work.result()


async def _show(run: Run, interactive: bool, as_json: bool, warnings: _Warnings) -> None:
    """The live table on a terminal, else a line every now and then."""
    if as_json:
        return
    if not interactive:
        while True:
            await asyncio.sleep(LINE_SECONDS)
            click.echo(line(run, await run.holdings()))
    console = Console()
    with warnings.collected(), Live(console=console, auto_refresh=False) as live:
        looked = -math.inf
        while True:
            if not run.destinations.remote or run.seconds - looked > REMOTE_SECONDS:
                looked = run.seconds
                await run.holdings()
            live.update(screen(run, run.latest, warnings.last, console.width), refresh=True)
            await asyncio.sleep(REFRESH_SECONDS)


@contextlib.contextmanager
def _stoppable(run: Run) -> Iterator[None]:
    """Ctrl-C once ends the traffic, twice the waiting."""

    def stop() -> None:
        if run.stopping.is_set():
            run.hurry.set()
        run.stopping.set()

    loop = asyncio.get_running_loop()
    with contextlib.suppress(NotImplementedError):  # Windows: Ctrl-C stays an exception
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        with contextlib.suppress(NotImplementedError):
            for number in (signal.SIGINT, signal.SIGTERM):
                loop.remove_signal_handler(number)


class _Warnings(logging.Handler):
    """Log records while the table is on the screen: they would tear it."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.texts: list[str] = []

    @property
    def last(self) -> str:
        """The newest one."""
        return self.texts[-1] if self.texts else ""

    def emit(self, record: logging.LogRecord) -> None:
        """Keep the text."""
        self.texts.append(f"{record.levelname.lower()}: {record.getMessage()}")

    @contextlib.contextmanager
    def collected(self) -> Iterator[None]:
        """Take the place of the root's handlers."""
        root = logging.getLogger()
        handlers = root.handlers[:]
        root.handlers[:] = [self]
        try:
            yield
        finally:
            root.handlers[:] = handlers
