"""The tables of `tailrace top`: what came in cannot command the terminal."""

from __future__ import annotations

import io
import re

from rich.console import Console

from pipeline.live.snapshot import Cell, Limit, Snapshot, Step, TraceSummary
from pipeline.live.terminal import screen
from pipeline.live.view import Observed, view

HOSTILE = "\x1b]0;title\x07\x1b[2J\u202e[red]"
SHOWN = r"\x1b]0;title\x07\x1b[2J\u202e[red]"


def test_control_characters_in_names_are_told_and_not_sent() -> None:
    cell = Cell(1, 0, [1, 0])
    trace = TraceSummary("0" * 32, "errors", f"s{HOSTILE}", f"t{HOSTILE}", 1.0, 1.0, 1, 0, True, False)
    limit = Limit(f"m{HOSTILE}", f"l{HOSTILE}", 5, 1, 1, 0.0, [])
    now = Snapshot(100.0, [], [Step(98, [1.0], {f"c{HOSTILE}": cell})], [limit], [trace])
    observed = [Observed("a", None, now), Observed("b", None, None, f"e{HOSTILE}")]
    out = io.StringIO()
    Console(file=out, force_terminal=True, width=300).print(screen(view(observed, 100.0)))
    sent = re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue())  # the tables' own colours
    assert all(character.isprintable() or character == "\n" for character in sent)
    assert all(f"{name}{SHOWN}" in sent for name in "stmlce")
