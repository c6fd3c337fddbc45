"""Durations as they are written, read and printed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from schemas.settings import Duration, format_duration, parse_duration

PARTS = st.tuples(
    st.one_of(st.integers(0, 10**9).map(str), st.decimals(0, 10**6, places=4).map(lambda number: f"{number:f}")),
    st.sampled_from(["ms", "s", "m", "h", "d"]),
)
WRITTEN = st.lists(PARTS, min_size=1, max_size=4).map(lambda parts: "".join(number + unit for number, unit in parts))


@given(WRITTEN.map(parse_duration) | st.floats(0, 1e18))
def test_what_is_printed_is_read_as_it_was(seconds: float) -> None:
    assert parse_duration(format_duration(seconds)) == seconds


def test_a_section_prints_what_it_takes() -> None:
    kind = TypeAdapter(Duration)
    for text, printed in {"30d": "2592000s", "1h30m": "5400s", "1.5s": "1.5s", "250ms": "250ms", "0s": "0s"}.items():
        assert kind.dump_python(kind.validate_python(text), mode="json") == printed
