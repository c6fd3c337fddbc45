"""The shop's traffic for a Collector: `python -m pipeline.demo.send --endpoint http://localhost:4318`.

The generator of docker-compose.yml. It sends OTLP/HTTP for ever, like programs with an SDK: a request that is not
answered well is sent again until it is. Older programs' JSON lines go as OTLP too, broken messages not at all.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Awaitable, Callable, Iterable

import aiohttp
import click

from pipeline.demo import encoding
from pipeline.demo.facts import Message
from pipeline.demo.traffic import RawTopics, Traffic
from schemas.http_client import in_words

CHAPTER_SECONDS = 60.0  # a Traffic remembers what it has sent: a new one begins this often
LATE_AFTER_SECONDS = 10.0  # when a span counts as late: decision_wait of deploy/compose/tailrace.yaml
RETRY_SECONDS = 1.0
TOPICS = RawTopics()

Sleep = Callable[[float], Awaitable[None]]


async def send(messages: Iterable[Message], endpoint: str, sleep: Sleep = asyncio.sleep) -> None:
    """Send each message at its time, counted from now; returns after the last one."""
    begin = time.monotonic()
    async with aiohttp.ClientSession(headers={"Content-Type": "application/x-protobuf"}) as session:
        for message in messages:
            if message.dead_letters:
                continue
            ahead = begin + message.at - time.monotonic()
            if ahead > 0:
                await sleep(ahead)
            if message.topic == TOPICS.spans:
                url, body = f"{endpoint}/v1/traces", message.value
            else:
                url, body = f"{endpoint}/v1/logs", encoding.logs_data(message.logs)
            waiting = ""
            while refusal := await _refusal(session, url, body):
                if refusal != waiting:
                    click.echo(f"{url}: {refusal}; trying again every second", err=True)
                waiting = refusal
                await sleep(RETRY_SECONDS)
            if waiting:
                click.echo(f"{url}: accepts", err=True)


async def _refusal(session: aiohttp.ClientSession, url: str, body: bytes) -> str:
    """Why to try again, empty if the Collector took it. Raises ClientResponseError when it never will."""
    try:
        async with session.post(url, data=body) as answer:
            if answer.status < 400:
                return ""
            if answer.status not in (429, 502, 503, 504):  # those that OTLP/HTTP calls retryable
                answer.raise_for_status()
            return f"HTTP {answer.status}"
    except (aiohttp.ClientConnectionError, TimeoutError) as error:
        return in_words(error)


async def _for_ever(endpoint: str, rate: float) -> None:
    seed = time.time_ns()
    for chapter in itertools.count():
        traffic = Traffic(seed + chapter, rate, CHAPTER_SECONDS, time.time_ns(), LATE_AFTER_SECONDS, TOPICS)
        await send(traffic.messages(), endpoint)


@click.command()
@click.option("--endpoint", default="http://localhost:4318", show_default=True, help="The Collector's OTLP/HTTP.")
@click.option("--rate", default=200.0, show_default=True, help="Spans per second, about.")
def main(endpoint: str, rate: float) -> None:
    """Send the shop's spans and logs to a Collector until stopped."""
    click.echo(f"about {rate:g} spans per second to {endpoint}, until Ctrl-C", err=True)
    asyncio.run(_for_ever(endpoint.rstrip("/"), rate))


if __name__ == "__main__":
    main()
