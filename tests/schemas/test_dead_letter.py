"""A letter for bytes that the queue does not take: what is left of them, and what says so."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest

from schemas.dead_letter import DETAIL_CHARACTERS, KEPT_OF_TOO_LARGE, DeadLetter

LIMIT = 2 * KEPT_OF_TOO_LARGE
LETTER = DeadLetter(bytes(range(251)) * (LIMIT // 251), "raw", 1, 2, 3, 4, "ingest", "malformed")


def test_what_the_queue_takes_is_kept_whole() -> None:
    letter = replace(LETTER, value=bytes(LIMIT))
    assert letter.fitted(LIMIT) is letter
    assert letter.cut_from is None


@pytest.mark.parametrize("detail", ["", "not a span", "x" * DETAIL_CHARACTERS, "x" * 10 * DETAIL_CHARACTERS])
def test_of_what_is_too_large_the_first_bytes_are_kept_and_the_size_and_sum_of_all_are_told(detail: str) -> None:
    whole = LETTER.value + b"the end" * 1000
    letter = replace(LETTER, value=whole, detail=detail).fitted(LIMIT)
    assert letter.value == whole[:KEPT_OF_TOO_LARGE]
    headers = dict(letter.headers())
    told = headers["detail"].decode()
    assert told.startswith(detail[:100])
    assert told.endswith(f"(first 64 KiB of {len(whole)} bytes, sha256 {hashlib.sha256(whole).hexdigest()})")
    assert DeadLetter.read(letter.value, letter.headers()) == letter
    assert letter.cut_from == len(whole)
