"""What a value may look like that nobody should keep: card numbers, e-mail addresses, tokens.

None of the expressions has `^`, `$` or `\\b`: they find in a whole message what they would find in each of its texts
(processors/redaction.py). What an expression cannot say, such as a check digit, a function does.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal

PresetName = Literal["card_number", "email", "token"]

Span = tuple[int, int]

SHORTEST_CARD, LONGEST_CARD = 12, 19  # digits (ISO/IEC 7812-1)
# First digits by which the networks are told: Visa; Mastercard; American Express, Diners, JCB; Discover, UnionPay and
# Maestro. Without them one number in ten would pass, time stamps in nanoseconds among them.
_ISSUERS = re.compile(rb"4|5[0-8]|2(?:22[1-9]|2[3-9]|[3-6]|7[01]|720)|3[0-9]|6[0-9]")
_LENGTHS = {  # by the first digit, longest first
    ord("2"): (16,),
    ord("3"): (16, 15, 14),
    ord("4"): (19, 16, 13),
    ord("5"): range(LONGEST_CARD, SHORTEST_CARD - 1, -1),
    ord("6"): range(LONGEST_CARD, SHORTEST_CARD - 1, -1),
}
_GROUP = re.compile(rb"[0-9]+")
_NO_DIGITS = bytes(byte for byte in range(256) if not 48 <= byte < 58)
_PLAIN = bytes(byte % 48 % 10 for byte in range(256))  # of a digit's byte: its number
_TWICE = bytes((0, 2, 4, 6, 8, 1, 3, 5, 7, 9)[number] for number in _PLAIN)  # the sum of the digits of twice as much


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
    digits = text.translate(None, _NO_DIGITS)
    if len(digits) < SHORTEST_CARD:
        return
    # Where groups end in the text, by the digits before their end; behind the last one there is room for a card.
    ends, done = array("I", bytes(4 * (len(digits) + LONGEST_CARD))), 0
    for group in _GROUP.finditer(text):
        done += group.end() - group.start()
        ends[done] = group.end()
    sums: list[bytes] = []  # most runs need none
    place = free = 0  # digits before the group; those before the end of the last card
    for group in _GROUP.finditer(text):
        first = place
        place += group.end() - group.start()
        if first < free or _ISSUERS.match(digits, first) is None:
            continue
        for length in _LENGTHS[digits[first]]:
            stop = first + length
            if not ends[stop]:
                continue
            sums = sums or _luhn_sums(digits)
            if sums[stop & 1][stop] == sums[stop & 1][first]:
                yield group.start(), ends[stop]
                free = stop
                break


def _luhn_sums(digits: bytes) -> list[bytes]:
    """Of the digits before each place: their sum as of a number that ends at an even place, or at an odd one, mod 10.

    Beginning with the last but one, every second digit counts as the digits of its double (ISO/IEC 7812-1, annex B).
    """
    plain, twice = digits.translate(_PLAIN), digits.translate(_TWICE)
    sums = []
    for parity in (0, 1):
        mixed = bytearray(plain)
        mixed[parity::2] = twice[parity::2]
        sums.append(bytes(total % 10 for total in accumulate(mixed, initial=0)))
    return sums


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
