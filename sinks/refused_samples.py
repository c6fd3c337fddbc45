"""Which samples of a request are to blame when remote write refuses it as a whole.

They are halved until the bad one stands alone. Once the times of those say that the others are too old as well, or too
far in the receiver's future, these are refused unsent: a backlog from before its window, or ticks of a clock that is
ahead, would take a request for each of their samples. So are, for some minutes, the samples of a series that was
refused for what it is: to find it again would take as long with each tick. After a crash the successor sends again what
may have arrived already; out-of-order and duplicate refusals of such samples are `already_delivered`. Each is asked
for: what one lane of the predecessor had delivered says nothing of another, and lanes may have been others.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from functools import cached_property
from itertools import chain, takewhile
from math import inf

from sinks.contract import Outcome, Refusal, Request, Unavailable
from sinks.http import Rejected, bisect
from sinks.sample_item import SampleItem, write_request

# Prometheus: "out of order sample", "duplicate sample for timestamp"; Mimir: "err-mimir-sample-out-of-order",
# "err-mimir-sample-duplicate-timestamp". Not "too old sample": nothing says that such a one arrived before.
DELIVERED_BEFORE = re.compile(r"out[ -]of[ -]order|duplicate[ -](sample|timestamp)|sample-duplicate")
# Prometheus, Thanos: "out of bounds", alone or with ": timestamp is too far in the future"; Mimir and Cortex: "its
# timestamp is too old". The receiver looks at the sample's time alone.
OUT_OF_BOUNDS = re.compile(r"out of bounds(?!.*future)|its timestamp is too old")
# Prometheus, as above; Mimir: "timestamp is too far in the future"; Cortex: "timestamp too new".
IN_FUTURE = re.compile(r"too far in the future|timestamp too new")
# Prometheus: "too old sample"; Mimir: "beyond the out-of-order time window". A series that is new would be taken, if it
# is not out of bounds: so many others of a request have to be refused in a row.
TOO_OLD = re.compile(r"too old sample|beyond the out-of-order")
MANY_TOO_OLD = 32
# What says nothing of the next sample of a series: the time, or what is in a histogram. With hyphens: Mimir's ids.
OF_THE_SAMPLE = re.compile(
    r"out[ -]of[ -](order|bounds)|duplicate|too[ -](old|new)|in[ -](the[ -])?future"
    r"|native[ -]histogram(?!s are disabled)|histogram(?:'s| has| spans) "
)
# So much a series loses when a limit of the receiver is raised, or others leave room. To find 200 of 20,000 takes 3,000
# requests.
REFUSED_FOR = 300.0  # seconds
MOST_REFUSED = 10_000  # series; some hundred bytes each
MANY_DELIVERED = 32  # in a row: from there on samples are asked for one by one, not by halves

HALVE = Rejected("")  # says nothing of any sample

Post = Callable[[bytes, int], Awaitable[Outcome | Rejected]]
"""Sends a body with so many samples; the answer is one for all of them."""


class Bounds:
    """Up to and from which times (ms) all samples of a request are refused, and what was said of the last of them."""

    def __init__(self) -> None:
        self._until, self._too_old = -inf, ""
        self._since, self._in_future = inf, ""
        self._in_a_row = 0  # refused for their time, unless their series is new

    def refused(self, time_ms: int, answer: Rejected, known: bool) -> None:
        """A sample that stood alone; of one that is `known` a newer one may have been delivered before."""
        too_old = TOO_OLD.search(answer.text)
        self._in_a_row += bool(too_old and not known)
        if OUT_OF_BOUNDS.search(answer.text) or (too_old and self._in_a_row >= MANY_TOO_OLD):
            self._until, self._too_old = max(self._until, time_ms), answer.detail
        elif IN_FUTURE.search(answer.text):
            self._since, self._in_future = min(self._since, time_ms), answer.detail

    @property
    def known(self) -> bool:
        """Whether there is one."""
        return bool(self._too_old or self._in_future)

    def beyond(self, time_ms: int) -> str:
        """Why a sample of this time is refused; "" if it may be taken."""
        if time_ms <= self._until:
            return self._too_old
        return self._in_future if time_ms >= self._since else ""

    def taken(self) -> None:
        """Some that were sent between."""
        self._in_a_row = 0


class RefusedSeries:
    """Series, as their labels, that the receiver refused alone within REFUSED_FOR, and what it said.

    When there are too many, more are not remembered.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._found: dict[bytes, tuple[float, str]] = {}  # until when; in order

    def add(self, series: bytes, answer: Rejected) -> None:
        """It was refused alone."""
        self._found.pop(series, None)
        if len(self._found) < MOST_REFUSED and not OF_THE_SAMPLE.search(answer.text):
            self._found[series] = self._clock() + REFUSED_FOR, answer.detail

    def forget(self) -> None:
        """Those whose time is over."""
        now = self._clock()
        for series in list(takewhile(lambda series: self._found[series][0] <= now, self._found)):
            del self._found[series]

    def clear(self) -> None:
        """One of them was taken."""
        self._found.clear()

    def __len__(self) -> int:
        return len(self._found)

    def detail(self, series: bytes) -> str:
        """What was said of it; "" of one that was not refused."""
        return self._found.get(series, (0.0, ""))[1]


class Search:
    """The samples of one request, each known by its number (`row`) in it.

    Where refused series are most of it, the first of their samples is the trial, which goes all the same and ahead of
    the others: if it is taken, so are they.
    """

    def __init__(self, request: Request[SampleItem], refused: RefusedSeries, post: Post) -> None:
        self._request, self._post = request, post
        self._rows = sum(item.rows for item in request.items)
        self._bounds, self._refused = Bounds(), refused
        self._delivered = 0  # before, in a row

    async def outcome(self) -> Outcome:
        """Send the request, then parts of it. Raises Unavailable if all of it was sent and nothing answered."""
        self._refused.forget()
        if self._refused and (waiting := await self._try()) is not None:
            return waiting
        return await bisect(self._request, range(self._rows), self._attempt)

    async def _try(self) -> Outcome | None:
        """Send the trial, if there is one; the outcome of all if it has to be sent again."""
        remembered = [row for row, series in enumerate(self._labels) if self._refused.detail(series)]
        if len(remembered) * 2 <= self._rows:
            return None
        row = remembered[0]
        answer = await self._send(write_request([self._singles[row]]), 1)
        if isinstance(answer, Rejected):
            self._refused.add(self._labels[row], answer)
        elif answer.retry:
            lost = (row,) if answer.lost else ()
            return replace(answer, retry=tuple(range(self._rows)), parts=tuple(self._request.parts), lost=lost)
        else:
            self._refused.clear()
        return None

    async def _attempt(self, part: Sequence[int]) -> Outcome | Rejected:
        """Ask for those of a part that are not refused unsent."""
        why = {row: detail for row in part if (detail := self._unsent(row))}
        asked = [row for row in part if row not in why]
        answer = await self._ask(asked) if asked else Outcome()
        if isinstance(answer, Rejected) and answer is not HALVE and len(asked) == 1 < len(part):
            why[asked[0]], answer = answer.detail, Outcome()
        if isinstance(answer, Rejected):
            return answer
        if answer.retry:
            again = tuple(n for n, row in enumerate(part) if row not in why)
            answer = replace(answer, retry=again, lost=again if answer.lost else ())
        return answer + Outcome(refused=tuple(Refusal(n, why[row]) for n, row in enumerate(part) if row in why))

    def _unsent(self, row: int) -> str:
        """Why a sample is refused unsent; "" if it is to be sent."""
        if self._refused and (detail := self._refused.detail(self._labels[row])):
            return detail
        return self._bounds.beyond(self._times[row]) if self._bounds.known else ""

    async def _ask(self, rows: Sequence[int]) -> Outcome | Rejected:
        """What becomes of these samples."""
        if len(rows) > 1 and self._delivered >= MANY_DELIVERED:
            return HALVE  # not asked for together
        whole = len(rows) == self._rows
        body = self._request.body if whole else write_request(self._singles[row] for row in rows)
        answer = await self._send(body, len(rows))
        if isinstance(answer, Rejected):
            return self._alone(rows[0], answer) if len(rows) == 1 else answer
        if answer.accepted:
            self._delivered = 0
            self._bounds.taken()
        return answer

    async def _send(self, body: bytes, rows: int) -> Outcome | Rejected:
        try:
            return await self._post(body, rows)
        except Unavailable as error:
            if rows == self._rows:
                raise
            return Outcome.unanswered(rows, error)

    def _alone(self, row: int, answer: Rejected) -> Outcome | Rejected:
        """The receiver refuses this sample: it has it already, or never takes it."""
        known = self._singles[row].redelivered
        if known and DELIVERED_BEFORE.search(answer.text):
            self._delivered += 1
            self._bounds.taken()
            return Outcome(already_delivered=1)
        self._bounds.refused(self._times[row], answer, known)
        self._refused.add(self._labels[row], answer)
        return answer

    @cached_property
    def _singles(self) -> list[SampleItem]:
        return list(chain.from_iterable(item.singles() for item in self._request.items))

    @cached_property
    def _times(self) -> list[int]:
        return list(chain.from_iterable(item.times() for item in self._request.items))

    @cached_property
    def _labels(self) -> list[bytes]:
        return list(chain.from_iterable(item.labels() for item in self._request.items))
