"""tailrace explain: why a trace was kept or dropped."""

from __future__ import annotations

import asyncio
import datetime
import json
import sys
from collections.abc import Iterator
from typing import Any

import aiohttp
import click

from pipeline.commands.console import CONFIG, TOKEN, WorkerUrl, asking, loaded, plural
from pipeline.config import Config
from pipeline.live.peers import Peer
from pipeline.operating import told_votes
from pipeline.operating.printable import printable
from processors.sampling.votes import from_plain
from schemas.errors import Unavailable
from schemas.ids import TRACE_ID_BYTES


class TraceId(click.ParamType):
    """16 bytes in hex, as Jaeger shows them; fewer are filled up with zeros."""

    name = "trace id"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> bytes:
        """The bytes; anything else is a usage error."""
        try:
            found = bytes.fromhex(value.replace("-", "").rjust(2 * TRACE_ID_BYTES, "0"))
        except ValueError:
            found = b""
        if len(found) != TRACE_ID_BYTES or not any(found):
            self.fail(f"{value!r} is not a trace id: up to {2 * TRACE_ID_BYTES} hex digits", param, ctx)
        return found


@click.command("explain")
@click.argument("trace_id", type=TraceId())
@CONFIG
@click.option(
    "--worker",
    "urls",
    type=WorkerUrl(),
    multiple=True,
    metavar="URL",
    help="Ask these workers' live pages first; again for more.",
)
@TOKEN
@click.option("--json", "as_json", is_flag=True, help="Everything, as JSON.")
def explain_command(trace_id: bytes, file: str, urls: tuple[str, ...], token: str, as_json: bool) -> None:
    """Say why a trace was kept or dropped: every policy's vote, and the spans that it rests on.

    Asks the worker that owns the trace's partition, if --worker or telemetry.live.peers name it and its live page is
    on; else it reads the decisions and the trace's own records from Kafka. Either way the policies vote again, on the
    rows that counted, also for a trace that was dropped or still waits. Told are the verdict, when it was made and by
    which version of the policies, the deadline and what set it, the records that the trace came in, and what of it came
    too late to count. With `regroup: never` every partition may have it: their decisions are read side by side, newest
    first, and a trace that nobody knows costs all of them. The token can be in TAILRACE_TOKEN. Exit code 0, 1 when the
    trace is not known or nobody can be asked, 78 if the file is wrong.

    \b
      tailrace explain --config tailrace.yaml 4bf92f3577b34da6a3ce929d0e0e4736
      tailrace explain --config tailrace.yaml --worker http://10.0.0.7:9464 4bf92f3577b34da6a3ce929d0e0e4736 --json
    """
    config = loaded(file)
    peers = [Peer(url, token or config.telemetry.bearer) for url in urls or config.telemetry.live.peers]
    with asking(config):
        found = asyncio.run(_found(config, trace_id, peers))
    if as_json:
        click.echo(json.dumps(found, ensure_ascii=False, indent=2))
    else:
        click.echo("\n".join(map(printable, lines(found))))
    sys.exit(1 if found["state"] == "unknown" else 0)


async def _found(config: Config, trace_id: bytes, peers: list[Peer]) -> dict[str, Any]:
    """What the owner says; else, saying so, what Kafka has."""
    async with aiohttp.ClientSession() as session:
        for peer in peers:
            try:
                answer = await peer.explained(session, trace_id.hex())
            except Unavailable as error:
                click.echo(printable(str(error)), err=True)
                continue
            if answer is not None:
                return answer | {"answered_by": peer.url}
    from pipeline.operating.explain import document, explain  # Faust takes a while

    return document(await explain(config, trace_id)) | {"answered_by": "kafka"}


def lines(found: dict[str, Any]) -> Iterator[str]:
    """An explanation for a terminal."""
    yield from _lines(found)
    for other in found.get("elsewhere", []):
        yield f"! records of it lie in partition {other['partition']} too: producers place it differently"
        yield from _lines(other)
    if found["state"] != "unknown":
        yield f"answered by {found['answered_by']}"


def _lines(found: dict[str, Any]) -> Iterator[str]:
    decision, seen = found["decision"], found["evidence"]
    yield f"trace {found['trace_id']}: {_state(found)}"
    if found["state"] == "unknown":
        yield (
            f"partition {found['partition']}: no verdict in the log of decisions and no record that waits for one; "
            "it is older than what Kafka retains, lies in the dead letters (`tailrace dlq list`), or never came"
        )
        for group, records in found.get("unread", {}).items():
            yield f"! ingest has {plural(records, 'unread record')} (group {group}): it may not have come this far"
        return
    if decision is not None:
        yield (
            f"decided at {_time(decision['stream_time'])} (stream time) by policies {decision['policies_version']}, "
            f"written {_time(decision['appended'])} to decisions/{found['partition']} at offset {decision['offset']}"
        )
    if (restored := found.get("restored")) is not None:
        yield (
            f"dropped then, restored {_time(restored['appended'])} at offset {restored['offset']}: {restored['why']}"
        )
    if seen is None:
        yield "its records are gone from Kafka: no policy can be asked again"
        yield from _later(found)
        return
    yield (
        f"{seen['spans']} spans, {seen['logs']} logs, {seen['duration_ms']:g} ms, randomness {seen['randomness']}; "
        f"first record {_time(seen['first'])}, deadline {_time(seen['deadline'])} by {seen['trigger']}"
    )
    yield f"came in {_places(found['sources'])}"
    yield from _later(found)
    yield from (f"  {line}" for line in told_votes.lines([from_plain(vote) for vote in found["votes"]]))
    if decision is not None and decision["policies_version"] != found["policies_version"]:
        yield f"! these are the votes of policies {found['policies_version']}, which did not decide it"
    elif found["agrees"] is False:
        unsaid = ", decision_wait was another" * (decision is not None and decision.get("waits") is None)
        yield f"! the votes come to another verdict: a rate was spent when it was decided{unsaid}, or records are gone"


def _later(found: dict[str, Any]) -> Iterator[str]:
    """What came too late to count, and what becomes of it."""
    later, decision = found.get("later"), found["decision"]
    if later is not None:
        errors = "ERROR" if later["errors"] == later["spans"] == 1 else f"{later['errors']} ERROR"
        spans = plural(later["spans"], "more span") + f" ({errors})" * bool(later["errors"])
        logs = plural(later["logs"], "more log")
        counts = [spans] * bool(later["spans"]) + [logs] * bool(later["logs"])
        after = 0 if decision is None else later["first"] - decision["appended"]
        when = f"{after / 1000:.1f} s after the verdict" if after > 0 else "behind its deadline"
        dropped = found["state"] == "dropped"
        follow = "see late_evidence or `tailrace restore`" if dropped else "late rows follow the verdict"
        yield f"! {', '.join(counts)} came {when}, at {_places(later['sources'])}; not evidence: {follow}"
    if (until := found.get("later_until")) is not None:
        yield f"later ones were looked for up to {_time(until)}"


def _places(sources: list[dict[str, Any]]) -> str:
    return ", ".join(f"{each['topic']}/{each['partition']}@{each['offset']}" for each in sources)


def _state(found: dict[str, Any]) -> str:
    decision = found["decision"]
    if found["state"] != "kept" or decision is None:
        waits = found["state"] == "undecided"
        return "undecided, waits for its deadline" if waits else str(found["state"])
    if found.get("restored") is not None:
        return "kept: dropped first, restored since"
    threshold = int(decision["threshold"], 16)
    share = f", at {told_votes.percentage(threshold):.4g} %" if threshold else ""
    return f"kept by {decision['policy']}{share}"


def _time(time_ms: int) -> str:
    return datetime.datetime.fromtimestamp(time_ms / 1000, datetime.UTC).isoformat(timespec="milliseconds")
