"""What the commands make of an address that answers, but not as a worker does, and of what a worker tells."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from aiohttp import web
from click.testing import CliRunner, Result

from pipeline.cli import cli
from pipeline.live.peers import NOT_OWNER
from tests.pipeline.configs import MINIMAL, as_yaml
from tests.services.process import HOST, free_port
from tests.services.serving import serving


@asynccontextmanager
async def answering(text: str, status: int = 200) -> AsyncIterator[str]:
    """The URL of a server that has one answer."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(text=text, status=status)

    async with serving(answer) as url:
        yield url


async def asked(folder: Path, command: str, answer: str, status: int = 200) -> tuple[str, Result]:
    file = folder / "tailrace.yaml"
    file.write_text(as_yaml(MINIMAL | {"kafka": {"bootstrap_servers": f"{HOST}:{free_port()}"}}), "utf-8")
    async with answering(answer, status) as url:
        words = [command, "--config", str(file), "--worker", url, "1"]
        return url, await asyncio.to_thread(CliRunner().invoke, cli, words)


@pytest.mark.parametrize("command", ["explain", "restore"])
@pytest.mark.parametrize("answer", ["<html>login", "[]", "{}", "\x1b[2J"])
async def test_what_is_no_worker_is_named(command: str, answer: str, tmp_path: Path) -> None:
    url, result = await asked(tmp_path, command, answer)
    assert (result.exit_code, result.stdout) == (1, "")
    shown = answer.replace("\x1b", r"\x1b")
    assert result.stderr.startswith(f"{url}: this is no answer of a worker: {shown}\n")


@pytest.mark.parametrize(
    ("command", "answer"),
    [
        ("explain", '{"trace_id": "1", "state": "kept", "decision": null, "evidence": null, "restored": '
                    '{"appended": 0, "offset": 1, "why": "by \\u001b[2J"}}'),
        ("restore", '{"outcome": "kept", "partition": 0, "why": "by \\u001b[2J"}'),
    ],
)  # fmt: skip
async def test_a_reason_cannot_command_the_terminal(command: str, answer: str, tmp_path: Path) -> None:
    _, result = await asked(tmp_path, command, answer)
    assert result.exit_code == 0, result.stderr
    assert r"by \x1b[2J" in result.stdout


@pytest.mark.parametrize("command", ["explain", "restore"])
@pytest.mark.parametrize(
    ("status", "answer", "said"),
    [
        (
            404,
            "404: Not Found",
            "its live page is off; `telemetry.live: true`, or `tailrace worker --live`, turns it on",
        ),
        (401, "this page wants telemetry.token", "it wants another token (telemetry.token)"),
        (404, f"{NOT_OWNER}\n", ""),
    ],
)
async def test_who_does_not_answer_says_why(command: str, status: int, answer: str, said: str, tmp_path: Path) -> None:
    """But for who only does not own the partition: somebody else does."""
    url, result = await asked(tmp_path, command, answer, status)
    assert result.exit_code == 1
    first = result.stderr.splitlines()[0]
    assert first == f"{url}: HTTP {status}: {said}" if said else not first.startswith(url)
