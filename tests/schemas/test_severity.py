from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.proto.logs.v1.logs_pb2 import SeverityNumber

from schemas.severity import NUMBERS, severity_number, severity_of_level, severity_text


def test_otlp_names_the_same_numbers() -> None:
    otlp = {name.removeprefix("SEVERITY_NUMBER_"): number for name, number in SeverityNumber.items()}
    del otlp["UNSPECIFIED"]
    assert {name: NUMBERS[name] for name in otlp} == otlp
    assert {severity_text(number): number for number in range(1, 25)} == otlp


@pytest.mark.parametrize("number", [0, 25, -1])
def test_other_numbers_have_no_name(number: int) -> None:
    assert severity_text(number) == ""


@given(st.sampled_from(sorted(NUMBERS)), st.sampled_from((str.lower, str.title, str.upper, "  {} ".format)))
def test_case_and_white_space_do_not_count(name: str, change: object) -> None:
    assert callable(change)
    assert severity_number(change(name)) == NUMBERS[name] in range(1, 25)


@pytest.mark.parametrize(
    ("level", "number"),
    [(0, 21), (3, 17), (4, 13), (6, 9), (7, 5), (8, 0), (10, 1), (20, 5), (30, 9), (35, 9), (40, 13), (50, 17),
     (60, 21), (70, 0), (200, 0), (-1, 0), (4.5, 0)],
)  # fmt: skip
def test_numeric_levels(level: float, number: int) -> None:
    assert severity_of_level(level) == number
