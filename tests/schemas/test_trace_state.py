"""The `ot` member of a tracestate: what it says, and saying it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.trace_state import members, threshold_of_state, threshold_text, with_threshold

THRESHOLDS = st.integers(0, (1 << 56) - 1)


@pytest.mark.parametrize(
    ("state", "threshold"),
    [
        (b"", 0),
        (b"ot=th:8", 1 << 55),
        (b"a=b, ot=rv:00000000000000;th:0000000000000a", 0xA),
        (b"ot=th:0", 0),
        (b"ot=th:", 0),
        (b"ot=th:123456789abcdef", 0),  # too long
        (b"ot=th:xyz", 0),
        (b"got=th:8", 0),
        (b"a=ot,b=th:8", 0),
        (b"k=,ot=th:8", 0),  # invalid: all of it is discarded (Trace Context, section 3.3.1.1)
        (b"ot=th:8,K=v", 0),
        (b"ot=th:8,ot=th:8", 0),
        (b",".join([b"ot=th:8", *(b"k%d=v" % n for n in range(32))]), 0),
        (b"ot=th:8, ,a=1\t", 1 << 55),
    ],
)
def test_the_threshold_of_a_tracestate(state: bytes, threshold: int) -> None:
    assert threshold_of_state(state) == threshold


@given(THRESHOLDS, st.sampled_from([b"", b"a=1", b"a=1,ot=th:f;rv:0123456789abcd,b=2", b"ot=x:y"]))
def test_what_was_said_is_read_and_the_rest_stays(threshold: int, state: bytes) -> None:
    said = with_threshold(state, threshold)
    assert said is not None
    assert threshold_of_state(said) == threshold
    before, after = members(state) or {}, members(said) or {}
    assert {k: v for k, v in before.items() if k != b"ot"} == {k: v for k, v in after.items() if k != b"ot"}
    kept = [part for part in before.get(b"ot", b"").split(b";") if part and not part.startswith(b"th:")]
    assert after[b"ot"].split(b";") == [f"th:{threshold_text(threshold)}".encode(), *kept]


def test_a_full_tracestate_loses_its_last_member() -> None:
    full = b",".join(b"k%d=v" % n for n in range(32))
    said = members(with_threshold(full, 1) or b"") or {}
    assert len(said) == 32
    assert list(said)[-1] == b"k30"


@pytest.mark.parametrize("state", [b"K=v", b"a=1,a=2", b"ot=" + b"x" * 250])
def test_what_cannot_be_said(state: bytes) -> None:
    assert with_threshold(state, 1 << 20 | 1) is None
