"""A history that fails, made smaller: fewer steps, fewer of them with faults, fewer traces, and the same check fails.

    python -m tests.simulation.minimise SEED       the history of that seed, if it fails

A history is cut, not shrunk: what is left of it draws the same numbers as before, and replays exactly.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from schemas.errors import ProtocolError
from tests.simulation.history import Kind, Part, Simulation, kind_of
from tests.simulation.kafka import OutOfRange

FAILURES = (AssertionError, ProtocolError, OutOfRange)
NUMBER = re.compile(r"[0-9a-f]{16}|\d+")
LAST_TOLD = 40  # lines


@dataclass(frozen=True)
class Failure:
    """What failed in a history, and what had happened."""

    seed: int
    kind: Kind
    part: Part
    check: str
    story: tuple[str, ...] = ()

    @property
    def same(self) -> str:
        """What is alike in failures of one check: its text without numbers and traces."""
        return NUMBER.sub("#", self.check)

    @property
    def literal(self) -> str:
        """Python that does it again."""
        return f"Simulation({self.seed}, {self.kind}, {self.part}).run().verify()"

    def __str__(self) -> str:
        left = [f"  {line}" for line in self.story[-LAST_TOLD:]]
        again = f"again: from tests.simulation.history import *; {self.literal}"
        return "\n".join([f"seed {self.seed}: {self.check}", *left, again])


def failure(seed: int, kind: Kind, part: Part | None = None) -> Failure | None:
    """What fails in a history; None: nothing. What is no check's failure is raised."""
    history = Simulation(seed, kind, part)
    try:
        history.run().verify()
    except FAILURES as error:
        check = str(error).split("\n")[0] or "an assertion"
        return Failure(seed, kind, part or Part(), check, tuple(history.story))
    return None


def minimised(found: Failure) -> Failure:
    """A smaller history in which the same check fails; of it nothing can be left out."""
    best = found
    part = Part(
        tuple(range(found.kind.traces)) if found.part.traces is None else found.part.traces,
        tuple(range(found.kind.steps)) if found.part.steps is None else found.part.steps,
        found.part.faults,
    )
    if part.faults is None:
        part = Part(part.traces, part.steps, part.steps)

    def still(part: Part) -> bool:
        nonlocal best
        again = failure(found.seed, found.kind, part)
        if again is None or again.same != found.same:
            return False
        best = again
        return True

    while True:
        traces, steps, faults = part.traces or (), part.steps or (), part.faults or ()
        steps = fewer(steps, lambda left, t=traces, f=faults: still(Part(t, left, f)))  # type: ignore[misc]
        faults = tuple(step for step in faults if step in set(steps))
        faults = fewer(faults, lambda left, t=traces, s=steps: still(Part(t, s, left)))  # type: ignore[misc]
        traces = fewer(traces, lambda left, s=steps, f=faults: still(Part(left, s, f)))  # type: ignore[misc]
        smaller = Part(traces, steps, faults)
        if smaller == part:
            assert still(part)
            return best
        part = smaller


def fewer(items: Sequence[int], fails: Callable[[tuple[int, ...]], bool]) -> tuple[int, ...]:
    """Delta debugging (Zeller, Hildebrandt: Simplifying and isolating failure-inducing input, 2002), by complements.

    >>> fewer(range(100), lambda left: 13 in left and 77 in left)
    (13, 77)
    """
    left, size = tuple(items), len(items)
    while left and size:
        first = 0
        while first < len(left):
            without = left[:first] + left[first + size :]
            if fails(without):
                left = without
            else:
                first += size
        size = min(size // 2, len(left))
    return left


def main(arguments: Sequence[str]) -> int:
    """Find, cut, tell."""
    (seed,) = map(int, arguments)
    found = failure(seed, kind_of(seed))
    if found is None:
        print(f"seed {seed} passes")
        return 0
    print(minimised(found))
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
