"""What a value may look like that nobody should keep: card numbers, e-mail addresses, tokens.

None of the expressions has `^`, `$` or `\\b`: they find in a whole message what they would find in each of its texts
(processors/redaction.py). What an expression cannot say, such as a check digit, a function does.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

PresetName = Literal["card_number", "email", "token"]

Span = tuple[int, int]

SHORTEST_CARD, LONGEST_CARD = 12, 19  # digits (ISO/IEC 7812-1)
# First digits by which the networks are told: Visa; Mastercard; American Express, Diners, JCB; Discover, UnionPay and
# Maestro. Without them one number in ten would pass, time stamps in nanoseconds among them.
_ISSUERS = re.compile(rb"4|5[0-8]|2(?:22[1-9]|2[3-9]|[3-6]|7[01]|720)|3[0-9]|6[0-9]")
_LENGTHS = {b"4": (13, 16, 19), b"2": (16,), b"3": (14, 15, 16), b"5": (12, 13, 14, 15, 16, 17, 18, 19)}


@dataclass(frozen=True, slots=True)
class Preset:
    """An expression of RE2, and which parts of a match it really is; None: all of it."""

    pattern: str
    parts: Callable[[bytes], Iterator[Span]] | None = None


def cards(text: bytes) -> Iterator[Span]:
    """Where card numbers are in a run of digits with single blanks or dashes between them.

    A number begins and ends where a group of digits does, so no part of a longer number is taken for one.

    >>> list(cards(b"4111 1111 1111 1111 12"))
    [(0, 19)]
    """
    groups = [match.span() for match in re.finditer(rb"[0-9]+", text)]
    first = 0
    while first < len(groups):
        digits, found = b"", None
        for start, end in groups[first : first + LONGEST_CARD]:  # a digit each, at least
            digits += text[start:end]
            if len(digits) > LONGEST_CARD:
                break
            if _is_card(digits):
                found = end
        if found is None:
            first += 1
            continue
        yield groups[first][0], found
        while first < len(groups) and groups[first][0] < found:
            first += 1


def _is_card(digits: bytes) -> bool:
    lengths = _LENGTHS.get(digits[:1], range(SHORTEST_CARD, LONGEST_CARD + 1))
    return len(digits) in lengths and _ISSUERS.match(digits) is not None and luhn(digits)


def luhn(digits: bytes) -> bool:
    """Whether the last digit checks the others (ISO/IEC 7812-1, annex B).

    >>> luhn(b"4111111111111111"), luhn(b"4111111111111112")
    (True, False)
    """
    total = 0
    for place, digit in enumerate(reversed(digits)):
        number = digit - 48
        if place % 2:
            number = number * 2 - 9 if number > 4 else number * 2
        total += number
    return total % 10 == 0


PRESETS: dict[PresetName, Preset] = {
    # The whole run of digits, for `cards` to look into: it could not tell a part of a longer number otherwise.
    "card_number": Preset(rf"[0-9](?:[ -]?[0-9]){{{SHORTEST_CARD - 1},}}", cards),
    "email": Preset(r"[\pL\pN._%+-]+(?:@|%40)[\pL\pN-]+(?:\.[\pL\pN-]+)*\.(?:\pL{2,}|xn--[a-z0-9-]+)"),
    "token": Preset(
        "|".join(
            (
                r"(?i:bearer)(?: |%20|\+)+[A-Za-z0-9._~+/=-]{16,}",  # RFC 6750
                r"(?i:authorization[\"': =]{1,5}basic)(?: |%20|\+)+[A-Za-z0-9+/]{4,}={0,2}",  # RFC 7617
                r"eyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]{8,}(?:\.[A-Za-z0-9_-]*){1,3}",  # JWT (RFC 7519), JWE
                r"(?:AKIA|ASIA)[A-Z2-7]{16}",  # AWS access key ids
                r"(?i:aws_?secret_?(?:access_?)?key[\"' :=]{1,5})[A-Za-z0-9/+]{40}",
                r"gh[pousr]_[A-Za-z0-9]{36,}|github_pat_[A-Za-z0-9_]{60,}",
                r"xox[abposr]-[A-Za-z0-9-]{10,}",  # Slack
                r"AIza[A-Za-z0-9_-]{35}",  # Google
                r"sk_live_[A-Za-z0-9]{16,}|rk_live_[A-Za-z0-9]{16,}",  # Stripe
                r"-----BEGIN [A-Z ]*PRIVATE KEY-----[A-Za-z0-9+/=\s\\]*",
            )
        )
    ),
}
