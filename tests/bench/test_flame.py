"""The arithmetic of bench.flame."""

from __future__ import annotations

from bench.flame import shares


def test_a_function_counts_once_a_stack_a_line_only_where_it_is_innermost_and_who_waits_nowhere() -> None:
    within, alone = shares(
        [
            "run (pipeline/worker.py:1);again (processors/a.py:2);again (processors/a.py:3);crc (zlib.py:9) 3",
            "run (pipeline/worker.py:1);again (processors/a.py:2) 1",
            "_worker (concurrent/futures/thread.py:81) 4",
        ]
    )
    assert within == {"run (pipeline/worker.py)": 1.0, "again (processors/a.py)": 1.0}
    assert alone == {"crc (zlib.py:9)": 0.75, "again (processors/a.py:2)": 0.25}
