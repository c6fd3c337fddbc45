"""Members of a tracestate, by W3C Trace Context, section 3.3."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from processors.sampling.trace_state import LONGEST_REMEMBERED, STATES_REMEMBERED, States
from schemas.trace_state import is_key, is_value, members


@pytest.mark.parametrize(
    ("state", "found"),
    [
        (b"", {}),
        (b"k=a", {b"k": b"a"}),
        (b" k=a\t,\tt@s= b ", {b"k": b"a", b"t@s": b" b"}),
        (b"a=b,,k=a,", {b"a": b"b", b"k": b"a"}),
        (b"k=a, ,b=c", {b"k": b"a", b"b": b"c"}),
        (b"k", None),
        (b"k=", None),
        (b"=a", None),
        (b"k =a", None),
        (b"K=a", None),
        (b"k=a,k=b", None),
        (b"k=a=b", None),
        (b"k=\xc3\xa9", None),
        (b"k=" + b"x" * 256, {b"k": b"x" * 256}),
        (b"k=" + b"x" * 257, None),
    ],
)
def test_members(state: bytes, found: dict[bytes, bytes] | None) -> None:
    assert members(state) == found


def test_the_collector_wants_no_blanks_between_commas() -> None:
    assert members(b"k=a, ,b=c", blanks=False) is None
    assert members(b"k=a,,b=c", blanks=False) == {b"k": b"a", b"b": b"c"}


def test_at_most_32_members() -> None:
    names = [b"m%d=1" % number for number in range(33)]
    assert len(members(b",".join(names[:32])) or {}) == 32
    assert members(b",".join(names)) is None


@given(
    st.dictionaries(
        st.from_regex(r"[a-z][a-z0-9_*/-]{0,9}", fullmatch=True),
        st.from_regex(r"[!-+]{1,9}", fullmatch=True),
        max_size=32,
    )
)
def test_what_is_written_is_read(wanted: dict[str, str]) -> None:
    state = ",".join(f"{key}={value}" for key, value in wanted.items()).encode()
    assert members(state) == {key.encode(): value.encode() for key, value in wanted.items()}
    assert all(map(is_key, wanted))
    assert all(map(is_value, wanted.values()))


@given(st.binary(max_size=40))
def test_any_bytes_are_read_or_refused(state: bytes) -> None:
    members(state)


def test_states_answer_for_every_key_and_value() -> None:
    states = States({b"k": {b"a": 1, b"b": 2}, b"t@s": {b"a": 4}}, blanks=True)
    long = b"k=a,x=" + b"y" * 250 + b",z=" + b"y" * 256
    assert len(long) > LONGEST_REMEMBERED
    for _ in range(2):
        assert [states.bits(s) for s in (b"k=a", b"k=b,t@s=a", b"k=c", b"x=a", b"k=a,k=a", long)] == [1, 6, 0, 0, 0, 1]
    for number in range(STATES_REMEMBERED + 10):
        assert states.bits(b"k=a,n=%d" % number) == 1
