"""The comparison under other loads, into bench/results/sweep.json: `python -m bench.sweep`, about an hour.

Catch-up, pinned: 1 and 10 spans per message, 30 policies, 1 % and 50 % of the traces kept; then the peer's settings,
into bench/results/tuning.json. More options are those of bench.compare and go to each (`--runs 1 --spans 200000`).
"""

from __future__ import annotations

import sys

from bench import compare

USUAL = ["--modes", "a", "b", "--loads", "catch-up", "--results", "sweep"]
SWEEP = [
    [*USUAL, "--spans-per-message", "1"],
    [*USUAL, "--spans-per-message", "10"],
    [*USUAL, "--unmet", "27"],
    [*USUAL, "--percentage", "1", "--no-failures"],
    [*USUAL, "--percentage", "50"],
    ["--modes", "tuning", "--loads", "catch-up", "--results", "tuning"],
]


def main() -> None:
    """One after the other."""
    for arguments in SWEEP:
        compare.main([*arguments, *sys.argv[1:]])


if __name__ == "__main__":
    main()
