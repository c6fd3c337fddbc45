"""The tables of `tailrace top`: what came in cannot command the terminal."""

from __future__ import annotations

import io
import re

from rich.console import Console

from pipeline.live.snapshot import Cell, Limit, Sample, Snapshot, Step, TraceSummary
from pipeline.live.terminal import screen
from pipeline.live.view import Observed, view

HOSTILE = "\x1b]0;title\x07\x1b[2J\u202e[red]"
SHOWN = r"\x1b]0;title\x07\x1b[2J\u202e[red]"


def shown(*observed: Observed) -> str:
    out = io.StringIO()
    Console(file=out, force_terminal=True, width=300).print(screen(view(observed, 100.0)))
    return re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue())  # the tables' own colours


def test_control_characters_in_names_are_told_and_not_sent() -> None:
    cell = Cell(1, 0, [1, 0])
    trace = TraceSummary("0" * 32, "errors", f"s{HOSTILE}", f"t{HOSTILE}", 1.0, 1.0, 1, 0, True, False)
    limit = Limit(f"m{HOSTILE}", f"l{HOSTILE}", 5, 1, 1, 0.0, [])
    now = Snapshot(100.0, [], [Step(98, [1.0], {f"c{HOSTILE}": cell})], [limit], [trace])
    observed = [Observed("a", None, now), Observed("b", None, None, f"e{HOSTILE}")]
    sent = shown(*observed)
    assert all(character.isprintable() or character == "\n" for character in sent)
    assert all(f"{name}{SHOWN}" in sent for name in "stmlce")


def test_a_lag_that_nothing_feeds_is_told() -> None:
    samples = [
        Sample("tailrace_config_info", {"prefix": "tailrace"}, 1),
        Sample("tailrace_ready", {"role": "sample"}, 1),
        Sample("tailrace_records_read_total", {"role": "sample", "topic": "tailrace.spans"}, 5),
        Sample("tailrace_head_lag_seconds", {"partition": "0"}, 0.7),
    ]
    ingest = Sample("tailrace_ready", {"role": "ingest"}, 1)
    assert "no ingest among these workers" in shown(Observed("a", None, Snapshot(100.0, samples)))
    assert "no ingest" not in shown(Observed("a", None, Snapshot(100.0, [*samples, ingest])))


def test_a_stuck_sink_is_told() -> None:
    def told(seconds: float) -> str:
        samples = [
            Sample("tailrace_ready", {"role": "sink.elasticsearch"}, 1),
            Sample("tailrace_sink_stuck_seconds", {"sink": "elasticsearch", "topic": "tailrace.kept.logs"}, seconds),
        ]
        return shown(Observed("a", None, Snapshot(100.0, samples)))

    assert "stuck" not in told(1.0)
    assert any(re.search(r"sink\.elasticsearch .* stuck 39 s", line) for line in told(39.4).splitlines())


def test_what_a_sink_sends_again_is_there_with_the_reason() -> None:
    def retries(number: int, time: float) -> Snapshot:
        return Snapshot(time, [Sample("tailrace_sink_retries_total", {"sink": "jaeger", "reason": "503"}, number)])

    assert "sent again" not in shown(Observed("a", None, retries(0, 100.0)))
    lines = shown(Observed("a", retries(2, 90.0), retries(7, 100.0))).splitlines()
    assert any(re.search(r"sink\.jaeger: 503 +7 +0\.5", line) for line in lines)
