"""Kept rows as envelopes."""

from __future__ import annotations

from array import array

from processors.sampling.forward import encoded
from schemas.envelope import ENVELOPE_BYTES, Envelope, RowVerdict
from tests.sinks import building


def test_kept_rows_of_a_large_resource_do_not_each_take_a_copy_of_it() -> None:
    large = building.envelope([building.span(name=str(number)) for number in range(40)], header=b"x" * 601_000)
    verdicts: list[RowVerdict | None] = [RowVerdict(True, "errors")] * 60
    found = encoded(large, array("I", range(40)), verdicts[:40])
    assert sum(map(len, found)) < 2 * 601_000
    assert [row for each in found for row in Envelope.decode(each).item] == list(range(40))
    wide = building.envelope([building.span(name="y" * 20_000) for _ in range(60)], header=b"x" * 301_000)
    found = encoded(wide, array("I", range(60)), verdicts)
    assert max(map(len, found)) < 2 * ENVELOPE_BYTES
    assert len(found) == 3
