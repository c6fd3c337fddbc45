"""Dead letters in a worker's metrics and in its log: the first of each kind, then how many there are, once a minute.

Whoever looks at a worker sees there that something is refused, and where to look. What a message says never shows: it
may be personal (`tailrace dlq show` prints it). A sink has lines of its own, with its destination's answer.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Iterable

from pipeline import telemetry
from pipeline.watching.seldom import Seldom
from schemas.dead_letter import DeadLetter

TELL_EVERY = 60.0  # seconds between two lines of one kind

log = logging.getLogger(__name__)

Kind = tuple[str, str, str]
"""Stage, topic, reason."""


class ToldLetters:
    """Counts by kind; as many kinds as there are topics and reasons (schemas/reasons.py)."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._seldom = clock, Seldom(TELL_EVERY)
        self._untold: Counter[Kind] = Counter()

    def tell(self, letters: Iterable[DeadLetter]) -> None:
        """Count letters that are stored by now; those of a transaction that failed come again."""
        first: dict[Kind, DeadLetter] = {}
        found: Counter[Kind] = Counter()
        for letter in letters:
            kind = letter.stage, letter.topic, letter.reason
            first.setdefault(kind, letter)
            found[kind] += 1
        self._untold += found
        for (stage, _, reason), number in found.items():
            telemetry.count("tailrace_dead_letters_total", number, stage=stage, reason=str(reason))
        now = self._clock()
        for kind, letter in first.items():
            if self._seldom.due(now, kind):
                log.warning(
                    "dead letters: tailrace dlq list FILE, tailrace dlq show FILE RECORD",
                    extra={
                        "stage": letter.stage,
                        "topic": letter.topic,
                        "reason": str(letter.reason),
                        "letters": self._untold.pop(kind),
                        "record": f"{letter.topic}/{letter.partition}/{letter.offset}/{letter.index}",
                    },
                )


TOLD = ToldLetters()
"""Of this process."""
