"""The metadata of ingest's offsets, of this and of earlier releases."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.raw_offset import RawOffset

NUMBERS = st.integers(0, 1 << 53)


@given(st.builds(RawOffset, st.none() | NUMBERS, NUMBERS, st.none() | NUMBERS, st.none() | NUMBERS, NUMBERS))
def test_unpack_is_the_inverse_of_pack(place: RawOffset) -> None:
    assert RawOffset.unpack(place.pack()) == place


@pytest.mark.parametrize(
    ("metadata", "place"),
    [
        ("1700000000123/4/16/93/0", RawOffset(1_700_000_000_123, 4, 16, 93, 0)),
        ("1700000000123/4/16//1", RawOffset(1_700_000_000_123, 4, 16, None)),
        ("1700000000123/4/16", RawOffset(1_700_000_000_123, 4, 16)),  # before the place was in it
        ("1700000000123/4", RawOffset(1_700_000_000_123, 4, None)),  # before N was in it
        ("/4", RawOffset(None, 4, None)),
        ("", RawOffset(None, 0, None)),
        (None, RawOffset(None, 0, None)),
        ("set by hand", RawOffset(None, 0, None)),
        ("1/2/3/4/5/6", RawOffset(1, 2, 3, 4, 5)),  # what a later release may add
    ],
)
def test_what_others_wrote(metadata: str | None, place: RawOffset) -> None:
    assert RawOffset.unpack(metadata) == place
