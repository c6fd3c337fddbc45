"""What is computed of texts that come from outside, remembered: a bounded number, and of short texts only.

Names repeat for ever, and looking one up is cheaper than making it anew; but keys are the producers' own and may be
as long as a message.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache, wraps
from typing import Any, ParamSpec, TypeVar

LONGEST = 1024  # of all arguments together: characters, or numbers of a tuple

P = ParamSpec("P")
T = TypeVar("T")


def remembered(most: int) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """A decorator: so many answers, the latest used, of a function of texts or tuples."""

    def decorate(function: Callable[P, T]) -> Callable[P, T]:
        known: Any = lru_cache(most)(function)

        @wraps(function)
        def call(*texts: Any) -> T:
            answer: T = (known if sum(map(len, texts)) <= LONGEST else function)(*texts)  # type: ignore[call-arg]
            return answer

        return call  # type: ignore[return-value]

    return decorate
