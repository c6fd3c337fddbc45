"""The canary's account of a counter that carries no ids, and answers of backends that are none."""

from __future__ import annotations

import json
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from pipeline.canary.backends import Elasticsearch, Jaeger, Looker, Progress, Prometheus
from pipeline.canary.probe import Probe
from pipeline.canary.settings import Backend
from schemas.errors import Unavailable
from tests.services.process import HOST

SPANS = 2


def begun(value: float) -> Progress:
    progress = Progress()
    progress.observe(value)
    return progress


@given(st.integers(0, 10**9), st.lists(st.sampled_from(["send", "count", "look", "reset"]), max_size=60))
def test_nothing_is_missing_once_all_is_counted_whatever_the_resets(start: int, steps: list[str]) -> None:
    """And something is missing before; a reset happens between two looks only once all before it was seen."""
    progress = begun(start)
    value, sent, counted, needed = start, 0, 0, [0]
    for step in steps:
        if step == "send":
            sent += SPANS
            needed.append(progress.send(SPANS))
        elif step == "count" and counted < sent:
            counted += 1
            value += 1
        elif step == "reset":
            progress.observe(value)
            value = 0
            progress.observe(value)
        progress.observe(value)
        assert [progress.missing(each) for each in needed] == [max(0, each - counted) for each in needed]


def test_what_was_given_up_is_not_missing_from_what_follows() -> None:
    progress = begun(100)
    first, second = progress.send(SPANS), progress.send(SPANS)
    progress.observe(101)  # one of the first two spans is lost
    assert progress.missing(first) == 1
    progress.give_up(1)
    assert (progress.missing(first), progress.missing(second)) == (0, SPANS)
    progress.observe(103)
    assert progress.missing(second) == 0


ODD: tuple[Any, ...] = ({"error": {"message": "context canceled"}}, {"result": {}}, {"result": {"resourceSpans": [{}]}},
       {"data": {"result": [{"value": [0, "NaN"]}]}}, {"data": {"result": {"a": 1}}}, {"hits": {"total": 1}},
       {"hits": {"total": {"value": float("inf")}}}, [], None, 1, "text")  # fmt: skip


async def test_an_odd_answer_is_no_answer() -> None:
    """With a status of 200, as of proxies and of what fails half way."""
    answers: list[Any] = [{"data": {"result": []}}]

    async def answer(_: web.Request) -> web.Response:
        return web.Response(text=json.dumps(answers[-1]))

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0)
    await runner.setup()
    await web.TCPSite(runner, HOST, 0).start()
    backend = Backend(endpoint=f"http://{HOST}:{runner.addresses[0][1]}")
    looking: list[Looker] = [Jaeger(backend), Elasticsearch(backend, "logs"), Prometheus(backend, "calls")]
    probe = Probe(bytes(15) + b"1", 0, 0.0)
    await looking[-1].before(probe)
    try:
        for looker in looking:
            for odd in ODD:
                answers.append(odd)
                with pytest.raises(Unavailable, match=f"this is no answer of {looker.name}: "):
                    await looker.found(probe)
    finally:
        for looker in looking:
            await looker.close()
        await runner.cleanup()
