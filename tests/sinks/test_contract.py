"""The algebra of outcomes."""

from __future__ import annotations

from sinks import create, signals
from sinks.contract import Outcome, Refusal
from sinks.settings import KINDS
from tests.sinks.building import sink


def test_parts_of_a_request_add_up() -> None:
    left = Outcome(accepted=2, refused=(Refusal(1, "bad"),))
    right = Outcome(already_delivered=1, retry=(0,), retry_after=2.0, reason="503", detail="busy").shifted(3)
    assert left + right == Outcome(2, 1, (Refusal(1, "bad"),), (3,), 2.0, "503", "busy")


def test_the_longer_wait_wins_and_none_stays_none() -> None:
    waits = [Outcome(retry_after=wait) for wait in (None, 1.0, 5.0)]
    assert (waits[0] + waits[1] + waits[2]).retry_after == 5.0
    assert (waits[0] + waits[0]).retry_after is None


def test_a_key_names_its_kind() -> None:
    for kind in KINDS:
        settings = sink("http://a")
        assert type(create(f"{kind}/eu", settings)) is type(create(kind, settings))
        assert signals(f"{kind}/eu", settings) == signals(kind, settings)
