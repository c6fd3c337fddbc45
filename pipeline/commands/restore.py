"""tailrace restore: bring a dropped trace back."""

from __future__ import annotations

import asyncio
import getpass
import json
import os
import sys
from typing import Any

import aiohttp
import click

from pipeline.commands.console import CONFIG, TOKEN, WorkerUrl, failed, loaded
from pipeline.commands.explain import TraceId
from pipeline.live.peers import Peer
from pipeline.operating.printable import printable
from processors.sampling.restore import Outcome
from schemas.errors import Unavailable

NOT_DONE = {
    Outcome.UNDECIDED: "it waits for its deadline, or its partition has no clock yet: nothing is dropped; ask later",
    Outcome.UNKNOWN: "no verdict in the log of decisions: older than what Kafka retains, or not yet, or it never came",
    Outcome.GONE: "its spans are gone: Kafka's retention has deleted them, or the number of partitions was changed",
    Outcome.TOO_LARGE: "its spans and logs do not fit into one transaction (16 MiB)",
    Outcome.TOO_FAR: "more of its partition's log than --max-read-bytes lies behind its first record; allow more",
    Outcome.FAILED: "Kafka did not answer the worker; ask again",
}
MOST_READ = 8 << 30  # bytes


@click.command("restore")
@click.argument("trace_id", type=TraceId())
@CONFIG
@click.option("--why", default="", help="A word on the reason; it stays with the decision.")
@click.option(
    "--worker", "urls", type=WorkerUrl(), multiple=True, metavar="URL", help="Ask these workers; again for more."
)
@TOKEN
@click.option("--wait", default=60.0, show_default=True, type=click.FloatRange(min=0, min_open=True), help="Seconds.")
@click.option(
    "--max-read-bytes",
    "most",
    default=MOST_READ,
    show_default=True,
    type=click.IntRange(min=1),
    help="Give up when the worker would have to read more of the log, from the trace's first record on.",
)
@click.option("--json", "as_json", is_flag=True, help="The answer as JSON.")
def restore_command(
    trace_id: bytes, file: str, why: str, urls: tuple[str, ...], token: str, wait: float, most: int, as_json: bool
) -> None:
    """Keep a trace that was dropped, while its spans are still in Kafka.

    The owner of the trace's partition does it: --worker or telemetry.live.peers name the workers, whose live page
    must be on. Every span goes to the backends exactly once, with those that come later; logs that waited or were
    dropped follow. The decision says who asked and why, and `tailrace explain` shows it. Asking twice does it once.
    With `regroup: never` it is looked for as `tailrace explain` does, and restored in every partition that dropped it.
    The token can be in TAILRACE_TOKEN. Exit code 0 when the trace is kept now, 1 when it is not, with the reason.

    \b
      tailrace restore --config tailrace.yaml --why "incident 4711" 4bf92f3577b34da6a3ce929d0e0e4736
      tailrace restore --config tailrace.yaml --worker http://10.0.0.7:9464 4bf92f3577b34da6a3ce929d0e0e4736 --json
    """
    config = loaded(file)
    peers = [Peer(url, token or config.telemetry.bearer) for url in urls or config.telemetry.live.peers]
    if not peers:
        failed("no worker to ask: name them with --worker URL or in telemetry.live.peers")
        sys.exit(1)
    reason = f"by {_user()}" + (f": {why}" if why else "")
    answers, left = asyncio.run(_asked(trace_id, reason, peers, most, wait))
    if not answers:
        failed(
            "nobody who answered owns the trace's partition; nothing was changed as far as is known: name all workers, "
            "or ask again"
        )
        sys.exit(1)
    if as_json:
        click.echo(json.dumps(answers[0] | {"elsewhere": answers[1:]}, ensure_ascii=False, indent=2))
    else:
        for found in answers:
            name = f"trace {trace_id.hex()}" + f", partition {found['partition']}" * (len(answers) + len(left) > 1)
            click.echo(printable(f"{name}: {told(found)}"))
    if left:
        partitions = ", ".join(map(str, sorted(left)))
        failed(f"it has records in partition {partitions} too, which nobody who answered owns; ask again")
    sys.exit(0 if not left and all(each["outcome"] in (Outcome.RESTORED, Outcome.KEPT) for each in answers) else 1)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user need not have a name
        return f"user {os.getuid()}"


async def _asked(
    trace_id: bytes, why: str, peers: list[Peer], most: int, wait: float
) -> tuple[list[dict[str, Any]], set[int]]:
    """What the owners say, one of each partition that has the trace, and the partitions whose owner did not.

    Others say whose it is not, or do not answer, which is told.
    """
    answers: dict[int, dict[str, Any]] = {}
    left: set[int] = set()
    async with aiohttp.ClientSession() as session:
        for peer in peers:
            try:
                found = await peer.restored(session, trace_id.hex(), why, most, wait)
            except Unavailable as error:
                click.echo(printable(str(error)), err=True)
                continue
            if found is None:
                continue
            left.update(found.pop("left", ()))
            for each in (found, *found.pop("elsewhere", ())):
                answers.setdefault(each["partition"], each | {"answered_by": peer.url})
            if left <= answers.keys():
                break
    return list(answers.values()), left - answers.keys()


def told(found: dict[str, Any]) -> str:
    """What came of it, as half a line."""
    if found["outcome"] == Outcome.RESTORED:
        rest = "; some may be missing, retention has passed its beginning" if found["partial"] else ""
        return f"restored, {found['spans']} spans and {found['logs']} logs until now{rest}"
    if found["outcome"] == Outcome.KEPT:
        return f"kept already, {found['why']}"
    return f"not restored, {NOT_DONE[Outcome(found['outcome'])]}"
