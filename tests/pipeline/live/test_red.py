"""Rate, errors and duration: what is charted is what was counted."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.live.red import MOST_SERVICES, OTHERS, STEP_SECONDS, STEPS, Red, charts, quantile
from schemas.point import PointBatch
from tests.pipeline.live.counting import CLIENT, ERROR, NAMES, OK, SERVER, batch

NOW = 1_700_000_000.0


def test_requests_that_were_served_are_counted_by_service() -> None:
    red = Red()
    calls = PointBatch(NAMES.calls, NAMES.calls_shape, 0, [(("cart", "GET /", SERVER, OK, ""), 7)])
    red.add(
        [calls, batch(("cart", SERVER, OK, (5, 0, 0, 0)), ("cart", SERVER, ERROR, (0, 2, 1, 0)))], NOW - STEP_SECONDS
    )
    red.add([batch(("cart", CLIENT, ERROR, (9, 0, 0, 0)), ("web", SERVER, OK, (0, 0, 0, 4)))], NOW)
    cart, web = charts([red.steps()], NOW)
    assert (cart.name, cart.calls, cart.failed) == ("cart", 8, 3)
    assert cart.rate[-2:] == [8 / STEP_SECONDS, 0]
    assert cart.errors[-2:] == [3 / STEP_SECONDS, 0]
    assert cart.p95[-1] is None
    assert (web.calls, web.p50_ms, web.p95_ms) == (4, 1000, 1000)


ROWS = st.lists(
    st.tuples(
        st.sampled_from("abc"), st.sampled_from([SERVER, CLIENT]), st.sampled_from([OK, ERROR]),
        st.tuples(*[st.integers(0, 9)] * 4),
    )
)  # fmt: skip


@settings(max_examples=25)
@given(st.lists(st.tuples(ROWS, st.integers(0, STEPS - 1), st.integers(0, 2)), max_size=20))
def test_charts_of_several_workers_add_up(
    bursts: list[tuple[list[tuple[str, str, str, tuple[int, ...]]], int, int]],
) -> None:
    reds = [Red() for _ in range(3)]
    calls: Counter[str] = Counter()
    for rows, ago, worker in sorted(bursts, key=lambda burst: -burst[1]):
        reds[worker].add([batch(*rows)], NOW - ago * STEP_SECONDS)
        for service, kind, _, buckets in rows:
            calls[service] += sum(buckets) if kind == SERVER else 0
    found = charts([red.steps() for red in reds], NOW)
    assert {service.name: service.calls for service in found if service.calls} == +calls
    for each in found:
        assert round(sum(each.rate) * STEP_SECONDS) == each.calls
        assert round(sum(each.errors) * STEP_SECONDS) == each.failed


def test_what_is_older_than_the_charts_is_forgotten() -> None:
    red = Red()
    for step in range(3 * STEPS):
        red.add([batch(("web", SERVER, OK, (1, 0, 0, 0)))], NOW + step * STEP_SECONDS)
    assert len(red.steps()) == STEPS
    assert charts([red.steps()], NOW + 10 * STEPS * STEP_SECONDS) == []


def test_services_without_number_are_counted_together() -> None:
    red = Red()
    red.add([batch(*((f"pod-{n}", SERVER, OK, (1, 0, 0, 0)) for n in range(3 * MOST_SERVICES)))], NOW)
    found = charts([red.steps()], NOW)
    assert len(found) == MOST_SERVICES + 1
    assert (found[0].name, found[0].calls) == (OTHERS, 2 * MOST_SERVICES)


def test_quantiles_are_those_of_prometheus() -> None:
    # histogram_quantile(0.9) of le 100: 50, le 200: 90, le 400: 100, le +Inf: 100
    assert quantile(0.9, [50, 40, 10, 0], [100, 200, 400]) == 200
    assert quantile(0.95, [50, 40, 10, 0], [100, 200, 400]) == 300
    assert quantile(0.5, [0, 0, 0, 3], [100, 200, 400]) == 400
    assert quantile(0.5, [0, 0, 0, 0], [100, 200, 400]) is None
