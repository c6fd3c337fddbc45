"""The comparison under other loads, into bench/results/sweep.json: `python -m bench.sweep`, some hours.

Catch-up, pinned: 1 and 10 spans per message, 30 policies, 1 % and 50 % of the traces kept; of a keyed topic how the
cost grows with spans per trace, attributes and traces that are undecided at once; of an un-keyed one, into
bench/results/attributes.json, with attributes; then the peer's settings, into bench/results/tuning.json. More options
are those of bench.compare and go to each (`--runs 1 --spans 200000`).
"""

from __future__ import annotations

import sys

from bench import compare
from bench.bars import LEAST_CPU, LEAST_MEMORY, TWO
from bench.contestants import TAILRACE

SIDES = {
    "a": [TAILRACE, LEAST_CPU, LEAST_MEMORY, "Collector, defaults"],
    "b": [TAILRACE, TWO, "two Collectors, defaults", LEAST_CPU],
    "one": [TAILRACE, LEAST_CPU, "Collector, defaults"],
}
LOADS = [
    ["--spans-per-message", "1"],
    ["--spans-per-message", "10"],
    ["--unmet", "27"],
    ["--percentage", "1", "--no-failures"],
    ["--percentage", "50"],
]
GROWTH = [
    *(["--spans-per-trace", count] for count in ("1", "100", "1000", "10000")),
    *(["--more-attributes", count] for count in ("15", "45", "95")),
    *(["--spans-per-trace", "2", "--live", count] for count in ("10000", "100000", "1000000")),
]

ATTRIBUTES = [["--more-attributes", count] for count in ("0", "15", "45", "95")]


def series() -> list[list[str]]:
    """The options of each."""
    every = [(mode, SIDES[mode], load) for load in LOADS for mode in SIDES]
    every += [("a", [TAILRACE, LEAST_CPU, LEAST_MEMORY], load) for load in GROWTH]
    found = [["--modes", mode, "--results", "sweep", *load, "--sides", *sides] for mode, sides, load in every]
    found += [["--modes", "b", "--results", "attributes", *load, "--sides", TAILRACE] for load in ATTRIBUTES]
    return [*found, ["--modes", "tuning", "--results", "tuning"]]


def main() -> None:
    """One after the other."""
    for options in series():
        compare.main(["--loads", "catch-up", *options, *sys.argv[1:]])


if __name__ == "__main__":
    main()
