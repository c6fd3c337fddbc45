"""Whether a destination is a receiver at all, before what it is sent is to blame.

Something else refuses whatever it gets: a server of TLS that is asked without, a path at which other things are asked.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import NamedTuple

from sinks.contract import Outcome
from sinks.http import Rejected

NOT_ONE = "no_receiver"  # the reason of a retry where something has refused a request without rows as well


class Reply(NamedTuple):
    """What was answered, what that says of the rows of the request, and whether only a receiver answers so."""

    status: int
    outcome: Outcome | Rejected
    of_receiver: bool


class Receiver:
    """One URL. `nothing` is a request that every receiver takes; `doubt` is what to ask the operator about the rest."""

    def __init__(self, nothing: bytes, doubt: str) -> None:
        self._nothing, self._doubt = nothing, doubt
        self._is_one = False

    async def sent(self, post: Callable[[bytes], Awaitable[Reply]], body: bytes, rows: int) -> Outcome | Rejected:
        """Post a body of so many rows; one that is refused before anything has been taken, and then `nothing`."""
        reply = await self._asked(post, body)
        if self._is_one or not isinstance(reply.outcome, Rejected):
            return reply.outcome
        trial = await self._asked(post, self._nothing)
        if isinstance(trial.outcome, Outcome) and trial.outcome.retry:
            return replace(trial.outcome, lost=())  # the rows were refused
        if trial.status == reply.status:
            detail = f"{reply.outcome.detail}, also to a request with nothing in it; {self._doubt}"
            return Outcome.retry_all(rows, NOT_ONE, detail)
        return reply.outcome

    async def _asked(self, post: Callable[[bytes], Awaitable[Reply]], body: bytes) -> Reply:
        reply = await post(body)
        self._is_one = self._is_one or reply.of_receiver
        return reply
