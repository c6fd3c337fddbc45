"""`tailrace top` on real pages: several workers in one screen, and an exit code for nobody there."""

from __future__ import annotations

import asyncio
import functools

import pytest
from click.testing import CliRunner, Result

from pipeline.cli import cli
from tests.pipeline.live.building import committed, kept, log, span
from tests.pipeline.live.pages import live_page

TOKEN = "correct-horse-battery"


async def top(*words: str) -> Result:
    """In a thread: it runs a loop of its own."""
    run = functools.partial(CliRunner().invoke, cli, ["top", "--once", "--every", "0.2", *words])
    return await asyncio.to_thread(run)


async def test_two_workers_are_one_screen() -> None:
    async with live_page(token=TOKEN) as one, live_page(token=TOKEN) as two:
        committed(one, kept(span(1, 1, error=True)), kept(log(1, 1)))
        committed(two, kept(span(2, 1)))
        result = await top("--token", TOKEN, one.url, two.url)
        assert result.exit_code == 0, result.output
        for words in ("ingest", "10", "cart", "kept traces", "cart: span 1", "errors"):
            assert words in result.output
        # Both counted three calls.
        assert any("cart" in line and " 6 " in line for line in result.output.splitlines())


async def test_without_the_token_nothing_is_left_but_open_metrics() -> None:
    async with live_page(token=TOKEN) as page:
        result = await top(page.url)
        assert result.exit_code == 1
        assert "wants another token (telemetry.token)" in result.output
    async with live_page(token=TOKEN, public_metrics=True) as page:
        committed(page, kept(span(1, 1)))
        result = await top(page.url)
        assert result.exit_code == 0
        assert "ingest" in result.output
        assert "kept traces, a sample" not in result.output


async def test_nobody_there_is_an_error_one_of_two_is_not() -> None:
    nobody = "http://127.0.0.1:9"
    result = await top(nobody)
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith("✗ http://127.0.0.1:9: ")
    assert "telemetry.port" in result.output
    async with live_page() as page:
        result = await top(page.url, nobody)
        assert result.exit_code == 0
        assert nobody in result.output


async def test_an_address_without_a_scheme_is_refused() -> None:
    result = await top("127.0.0.1:9464")
    assert result.exit_code == 2
    assert "127.0.0.1:9464 must be http(s)://host:port" in result.output


async def test_workers_behind_a_path_are_asked() -> None:
    result = await top("http://127.0.0.1:9/tailrace")
    assert result.exit_code == 1, result.output
    assert "http://127.0.0.1:9/tailrace: " in result.stderr


@pytest.mark.parametrize("command", ["top", "explain 1 --config a --worker", "restore 1 --worker"])
@pytest.mark.parametrize("url", ["http://me:s3cret@a:1", "http://a:1/?token=s3cret", "http://a:70000/s3cret@"])
def test_an_address_with_a_password_is_refused_and_not_shown(command: str, url: str) -> None:
    result = CliRunner().invoke(cli, [*command.split(), url])
    assert result.exit_code == 2
    assert "must" in result.output
    assert "s3cret" not in result.output
