"""The canary's account of a counter that carries no ids, and answers of backends that are none."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import AsyncExitStack
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from pipeline.canary.backends import Elasticsearch, Jaeger, Labels, Looker, Progress, Prometheus
from pipeline.canary.probe import Probe
from pipeline.canary.settings import Backend
from schemas.errors import Unavailable
from tests.services.serving import serving

SPANS = 2


def begun(*values: float) -> Progress:
    progress = Progress()
    progress.observe(named(values))
    return progress


def named(values: Sequence[float]) -> dict[Labels, float]:
    """Series by name; one of a negative value is not there."""
    return {(("span_name", str(number)),): value for number, value in enumerate(values) if value >= 0}


STEPS = st.lists(st.tuples(st.sampled_from(["send", "count", "look", "reset", "gap"]), st.booleans()), max_size=60)


@given(st.integers(0, 10**9), st.integers(-1, 10**9), STEPS)
def test_nothing_is_missing_once_all_is_counted_whatever_the_resets(
    first: int, second: int, steps: list[tuple[str, bool]]
) -> None:
    """And something is missing before; a reset happens between two looks only once all before it was seen."""
    values = [first, second]
    progress = begun(*values)
    sent, counted, needed = 0, 0, [0]
    for step, which in steps:
        if step == "send":
            sent += SPANS
            needed.append(progress.send(SPANS))
        elif step == "count" and counted < sent:
            counted += 1
            values[which] = max(0, values[which]) + 1
        elif step == "reset":
            progress.observe(named(values))
            values[which] = min(0, values[which])
        progress.observe(named(values))
        if step == "gap":
            progress.observe(named([-1 if number == which else value for number, value in enumerate(values)]))
        assert [progress.missing(each) for each in needed] == [max(0, each - counted) for each in needed]


def test_what_was_given_up_is_not_missing_from_what_follows() -> None:
    progress = begun(100)
    first, second = progress.send(SPANS), progress.send(SPANS)
    progress.observe(named([101]))  # one of the first two spans is lost
    assert progress.missing(first) == 1
    progress.give_up(1)
    assert (progress.missing(first), progress.missing(second)) == (0, SPANS)
    progress.observe(named([103]))
    assert progress.missing(second) == 0


ODD: tuple[Any, ...] = ({"error": {"message": "context canceled"}}, {"result": {}}, {"result": {"resourceSpans": [{}]}},
       {"data": {"result": [{"metric": {}, "value": [0, "NaN"]}]}}, {"data": {"result": {"a": 1}}},
       {"data": {"result": [{"value": [0, "1"]}]}}, {"hits": {"total": 1}},
       {"hits": {"total": {"value": float("inf")}}}, [], None, 1, "text")  # fmt: skip


async def test_no_redirect_is_followed() -> None:
    """The backend's headers went to wherever it pointed."""
    asked: list[str] = []

    async def answer(request: web.Request) -> web.Response:
        asked.append(request.path)
        raise web.HTTPTemporaryRedirect(f"http://{request.host}/elsewhere?token=a")

    async with serving(answer) as url, AsyncExitStack() as stack:
        backend = Backend(endpoint=url)
        looking: list[Looker] = [Jaeger(backend), Elasticsearch(backend, "logs")]
        for looker in looking:
            stack.push_async_callback(looker.close)
            with pytest.raises(Unavailable, match=r": 307 no redirect is followed: .*/elsewhere\)$"):
                await looker.found(Probe(bytes(15) + b"1", 0, 0.0))
    assert len(asked) == len(looking)


async def test_an_odd_answer_is_no_answer() -> None:
    """With a status of 200, as of proxies and of what fails half way."""
    answers: list[Any] = [{"data": {"result": []}}]

    async def answer(_: web.Request) -> web.Response:
        return web.Response(text=json.dumps(answers[-1]))

    async with serving(answer) as url, AsyncExitStack() as stack:
        backend = Backend(endpoint=url)
        looking: list[Looker] = [Jaeger(backend), Elasticsearch(backend, "logs"), Prometheus(backend, "calls")]
        for looker in looking:
            stack.push_async_callback(looker.close)
        probe = Probe(bytes(15) + b"1", 0, 0.0)
        await looking[-1].before(probe)
        for looker in looking:
            for odd in ODD:
                answers.append(odd)
                with pytest.raises(Unavailable, match=f"this is no answer of {looker.name}: "):
                    await looker.found(probe)
