"""What limits made fold is told with the limit whose it was, and goes on after a takeover."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from processors.cardinality import OVERFLOW, Limits
from processors.folds import SERIES, Folds
from schemas.point import Labels, Shape

SHAPE = Shape("counter", ("service", "tenant"), (), 1)
labels = st.tuples(st.sampled_from("ab"), st.sampled_from("xyz"))


@given(st.lists(st.tuples(labels, st.integers(1, 9), st.booleans())), st.integers(0, 2), st.integers(1, 6))
def test_every_fold_is_counted_for_the_limit_that_it_is_of(
    counted: list[tuple[Labels, int, bool]], values: int, series: int
) -> None:
    limiter, folds = Limits(series, values).limiter("m", SHAPE), Folds()
    expected = {"service": 0, "tenant": 0, SERIES: 0}
    for own, number, owner_changes in counted:
        within = limiter.within_values(own)
        placed = limiter.place(within)
        folds.add(SHAPE.label_names, own, within, placed, number)
        for name, value, left in zip(SHAPE.label_names, own, within, strict=True):
            expected[name] += number * (value != left and left == OVERFLOW)
        expected[SERIES] += number * (placed != within)
        if owner_changes:
            states, folds = folds.states(SHAPE, limiter), Folds()
            for state in states:
                folds.restore(state)
    states = folds.states(SHAPE, limiter)
    assert [state.label for state in states] == ["service", "tenant", SERIES]
    assert {state.label: state.folded for state in states} == expected
    assert all(state.demand >= state.active for state in states)
    folds.forget("tenant")
    assert folds.states(SHAPE, limiter)[1].folded == 0
