"""What a user reads: the table, the summary, and one sentence when something that was named does not answer."""

from __future__ import annotations

import io
import shutil
from types import SimpleNamespace
from typing import cast

import aiohttp
import pytest
from click.testing import CliRunner
from rich.console import Console

from pipeline.demo import command
from pipeline.demo.backends import LocalBackends
from pipeline.demo.command import figures, has_screen
from pipeline.demo.destinations import Destinations
from pipeline.demo.letters import DeadLetterReader
from pipeline.demo.run import Options, Run, raw_topics
from pipeline.demo.screen import line, screen
from pipeline.demo.settings import Endpoints, configuration
from pipeline.demo.summary import summary
from pipeline.worker import Worker
from tests.pipeline.demo.ledgers import perfect, sent

NOWHERE = "127.0.0.1:1"


class Joining:
    """A worker of which one role holds nothing yet."""

    server = SimpleNamespace(port=9)

    def ready(self) -> dict[str, bool]:
        return {"ingest": True, "sample": False}


@pytest.fixture
def run() -> Run:
    local, ledger, options = LocalBackends(), sent(), Options(seed=5)
    local.holdings = perfect(ledger)
    trace_id = next(iter(local.holdings.spans))
    local.holdings.policies = {trace_id: "errors"}
    url = "http://127.0.0.1:9"
    config = configuration(Endpoints(NOWHERE, url, url, url, transactions=False), raw_topics(options))
    ends = Destinations(local, url, url, url, cast(aiohttp.ClientSession, None))
    return Run(options, ledger, config, cast(Worker, Joining()), ends, cast(DeadLetterReader, None))


def test_the_table_shows_all_stages(run: Run) -> None:
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(screen(run, run.destinations.local.holdings, "something was logged"))
    text = console.export_text()
    for words in (
        "traffic flows",
        f"{run.ledger.spans:,}",
        "a span says ERROR",
        "joining",
        "__overflow__",
        "was logged",
    ):
        assert words in text


def test_a_narrow_terminal_has_it_whole(run: Run) -> None:
    """At 80 columns and 24 lines the table was cut."""
    console = Console(width=80, height=24, record=True, file=io.StringIO())
    console.print(screen(run, run.destinations.local.holdings, "something was logged", console.width))
    lines = console.export_text().splitlines()
    assert len(lines) < console.height
    text = " ".join(" ".join(lines).split())
    told = (
        f"{run.ledger.spans:,} spans and",
        "sample joining",
        "1 errors",
        "in Prometheus",
        "__overflow__",
        "was logged",
    )
    for words in told:
        assert words in text


def test_the_summary_is_wrapped_at_words(run: Run) -> None:
    holdings = run.destinations.local.holdings
    audit = run.audit(holdings)
    whole, narrow = summary(run, holdings, audit), summary(run, holdings, audit, 80)
    assert max(map(len, whole.splitlines())) > 80
    assert max(map(len, narrow.splitlines())) <= 80
    assert narrow.split() == whole.split()


@pytest.mark.parametrize("there", [True, False])
def test_what_comes_next_begins_with_the_command(run: Run, monkeypatch: pytest.MonkeyPatch, there: bool) -> None:
    """`make demo` runs the code of the clone, and leaves no command tailrace."""
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/tailrace" if there else None)
    holdings = run.destinations.local.holdings
    _, following = summary(run, holdings, run.audit(holdings)).split("Next\n")
    assert (".venv/bin/pip install '.[demo]'" in following) is not there
    assert following.index("docs/tutorial.md") < following.index("tailrace demo")
    assert "tailrace.yaml" not in following


def test_the_line_and_the_summary_say_the_figures(run: Run) -> None:
    holdings = run.destinations.local.holdings
    audit = run.audit(holdings)
    assert f"in: {run.ledger.spans} spans" in line(run, holdings)
    text = summary(run, holdings, audit)
    assert "✗" not in text
    assert f"{audit.figures.traces_kept:,} were kept, 0 of them broken" in text
    holdings.spans[next(iter(holdings.spans))].append(b"foreign!")
    assert "✗ traces" in summary(run, holdings, run.audit(holdings))


def test_the_figures_say_whether_they_are_right(run: Run) -> None:
    """`dlq` alone did not say how many were sent on purpose."""
    holdings = run.destinations.local.holdings
    told = figures(run, run.audit(holdings))
    assert (told["ok"], told["broken_messages"], told["dlq"]) == (True, run.ledger.dead_letters, holdings.dead_letters)
    holdings.dead_letters += 1
    told = figures(run, run.audit(holdings))
    assert (told["ok"], told["broken_messages"]) == (False, told["dlq"] - 1)


@pytest.mark.parametrize("option", ["--kafka", "--jaeger", "--elasticsearch", "--prometheus"])
def test_a_server_that_does_not_answer_is_one_sentence(option: str) -> None:
    address = NOWHERE if option == "--kafka" else f"http://{NOWHERE}"
    result = CliRunner().invoke(command, ["--seconds", "5", "--json", option, address])
    assert result.exit_code == 1
    assert "Error: " in result.stderr
    assert NOWHERE.removesuffix(":1") in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    ("platform", "environ", "seen"),
    [
        ("linux", {}, False),
        ("linux", {"DISPLAY": ":0"}, True),
        ("linux", {"WAYLAND_DISPLAY": "wayland-0"}, True),
        ("linux", {"DISPLAY": "localhost:10", "SSH_CONNECTION": "10.0.0.1 1 10.0.0.2 22"}, False),
        ("darwin", {}, True),
        ("darwin", {"SSH_CONNECTION": "10.0.0.1 1 10.0.0.2 22"}, False),
    ],
)
def test_a_browser_is_opened_only_where_it_is_seen(platform: str, environ: dict[str, str], seen: bool) -> None:
    assert has_screen(platform, environ) == seen
