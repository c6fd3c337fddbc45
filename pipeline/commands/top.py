"""tailrace top: the live page of some workers in a terminal."""

from __future__ import annotations

import asyncio
import sys
import time
from math import inf

import aiohttp
import click
from rich.console import Console
from rich.live import Live

from pipeline.commands.console import TOKEN, WorkerUrl, failed
from pipeline.live import terminal
from pipeline.live.peers import Peer
from pipeline.live.view import Past, View, view
from pipeline.operating.printable import printable

EVERY = 1.0  # seconds between two looks
PIPE_COLUMNS = 140  # of what goes to a file


@click.command()
@click.argument("urls", nargs=-1, type=WorkerUrl(), metavar="[URL]…")
@TOKEN
@click.option("--once", is_flag=True, help="Look for --every seconds, print one screen and end.")
@click.option("--every", type=click.FloatRange(0.2), default=EVERY, show_default=True, help="Seconds between looks.")
def top(urls: tuple[str, ...], token: str, once: bool, every: float) -> None:
    """Show what workers do right now: roles, policies, drops, requests, limits, kept traces.

    Several workers are added up. Without a URL it asks http://127.0.0.1:9464. Of a worker whose live page is off, only
    /metrics is shown: no requests and no traces. The token can be in TAILRACE_TOKEN.
    Ctrl-C ends it. Exit code 1 if no worker answers.

    \b
      tailrace top
      tailrace top http://10.0.0.7:9464 http://10.0.0.8:9464
      tailrace top --once > now.txt
    """
    peers = [Peer(url, token) for url in urls or ("http://127.0.0.1:9464",)]
    try:
        sys.exit(asyncio.run(_once(peers, every) if once else _watch(peers, every)))
    except KeyboardInterrupt:
        sys.exit(0)


async def _look(peers: list[Peer], session: aiohttp.ClientSession, past: Past) -> View:
    return view(await asyncio.gather(*(peer.observed(session, past) for peer in peers)), time.time())


async def _once(peers: list[Peer], every: float) -> int:
    past = Past(gap=inf)
    async with aiohttp.ClientSession() as session:
        if code := _code(await _look(peers, session, past)):
            return code
        await asyncio.sleep(every)
        shown = await _look(peers, session, past)
    Console(width=None if sys.stdout.isatty() else PIPE_COLUMNS).print(terminal.screen(shown))
    return _code(shown)


async def _watch(peers: list[Peer], every: float) -> int:
    past = Past(gap=inf)
    async with aiohttp.ClientSession() as session:
        shown = await _look(peers, session, past)
        if code := _code(shown):
            return code
        with Live(console=Console(), screen=sys.stdout.isatty(), auto_refresh=False) as live:
            while True:
                live.update(terminal.screen(shown), refresh=True)
                await asyncio.sleep(every)
                shown = await _look(peers, session, past)


def _code(shown: View) -> int:
    """1, with the reasons, if nobody answered."""
    if not all(worker.error for worker in shown.workers):
        return 0
    for worker in shown.workers:
        failed(printable(worker.error))
    click.echo("A worker answers on its telemetry.host and telemetry.port. Name others: tailrace top URL…", err=True)
    return 1
