"""What a worker logs: JSON lines, one per record, without secrets."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from mode import Service
from pydantic import SecretStr

from pipeline.watching import logs
from schemas.errors import Unavailable


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    stream = io.StringIO()
    logs.configure("INFO", stream)
    yield stream
    logging.captureWarnings(False)
    root.handlers[:] = before
    root.setLevel(level)
    for name in ("aiokafka", "faust", "mode", "elastic_transport", "elasticsearch", "asyncio"):
        logging.getLogger(name).setLevel(logging.NOTSET)


def last(stream: io.StringIO) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(stream.getvalue().splitlines()[-1])
    return found


def test_fields(lines: io.StringIO) -> None:
    logging.getLogger("tailrace.sample").info("took %d", 3, extra={"partition": 7, "reason": ValueError("x")})
    line = last(lines)
    assert line.pop("time").endswith("Z")
    assert line == {"level": "INFO", "logger": "tailrace.sample", "message": "took 3", "partition": 7, "reason": "x"}


def test_what_aiokafka_says_again_and_again_is_written_once_in_a_while(
    lines: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And how often it was; what others say is written each time."""
    theirs, ours = logging.getLogger("aiokafka"), logging.getLogger("tailrace")
    for node in (1, 1, 2, 1):
        theirs.error("Unable connect to node with id %s", node)
        ours.error("again")
    monkeypatch.setattr(logs, "SAID_AGAIN", 0.0)
    theirs.error("Unable connect to node with id %s", 1)
    told = [json.loads(line)["message"] for line in lines.getvalue().splitlines()]
    assert [line for line in told if line != "again"] == [
        "Unable connect to node with id 1",
        "Unable connect to node with id 2",
        "Unable connect to node with id 1 (2 times more since it was said last)",
    ]
    assert told.count("again") == 4


def test_what_ends_tasks_of_aiokafka_is_told_each_time_for_its_own_reason(lines: io.StringIO) -> None:
    """Its words are the same for all."""
    for why in ("a", "a", "b"):
        try:
            raise ValueError(why)
        except ValueError:
            logging.getLogger("aiokafka").exception("Unexpected error in fetcher routine")
    told = [json.loads(line)["exception"].splitlines()[-1] for line in lines.getvalue().splitlines()]
    assert told == ["ValueError: a", "ValueError: b"]


def test_one_line_per_record_even_with_a_traceback(lines: io.StringIO) -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logging.getLogger("a").exception("failed\nbadly")
    assert len(lines.getvalue().splitlines()) == 1
    assert "ValueError: two\nlines" in last(lines)["exception"]


def test_an_error_of_ours_is_told_in_words_and_one_of_others_with_its_traceback(lines: io.StringIO) -> None:
    for error in (Unavailable("topic a is missing: tailrace topics FILE --create"), ValueError("a bug")):
        try:
            raise error
        except Exception as caught:
            logging.getLogger("a").error("role failed", exc_info=caught)
        found = last(lines)
        assert ("Traceback" in found.get("exception", "")) is isinstance(error, ValueError)
        assert str(error) in (found.get("error") or found["exception"])


async def test_a_service_that_crashes_says_nothing_of_its_own(lines: io.StringIO) -> None:
    service = Service()
    await service.crash(ValueError("told already"))
    assert service.crashed
    assert lines.getvalue() == ""


def test_what_the_sink_says_itself_is_not_said_by_its_library(lines: io.StringIO) -> None:
    pool = logging.getLogger("elastic_transport.node_pool")
    pool.warning("Node has failed for 3 times in a row, putting on 30 second timeout")
    assert lines.getvalue() == ""
    pool.error("all nodes are gone")
    assert last(lines)["message"] == "all nodes are gone"


def test_secrets_are_never_written(lines: io.StringIO) -> None:
    fields = {"sasl_password": "hunter2", "auth": {"bearer_token": "hunter2"}, "held": SecretStr("hunter2")}
    logging.getLogger("a").warning("x", extra=fields)
    assert "hunter2" not in lines.getvalue()


def test_an_extra_field_hides_none_of_ours(lines: io.StringIO) -> None:
    logging.getLogger("a").warning("x", extra={"level": "mine", "time": 0})
    line = last(lines)
    assert (line["level"], line["level_"], line["time_"]) == ("WARNING", "mine", 0)


def test_libraries_are_quiet_below_warning(lines: io.StringIO) -> None:
    logging.getLogger("aiokafka.conn").info("x")
    assert lines.getvalue() == ""
    logging.getLogger("aiokafka.conn").warning("y")
    assert last(lines)["message"] == "y"


def test_what_the_fast_encoder_refuses_is_written_all_the_same(lines: io.StringIO) -> None:
    logging.getLogger("a").warning("x", extra={"broken": "\ud800", "large": 1 << 70})
    assert last(lines)["large"] == 1 << 70


def test_requests_with_passwords_are_not_written_down(lines: io.StringIO) -> None:
    """At DEBUG aiokafka's connections log what they send."""
    logs.configure("DEBUG", lines)
    logging.getLogger("aiokafka.conn").debug("Request 2: SaslAuthenticateRequest(%s)", b"hunter2")
    logging.getLogger("aiokafka.cluster").debug("heard")
    assert "hunter2" not in lines.getvalue()
    assert "heard" in lines.getvalue()
