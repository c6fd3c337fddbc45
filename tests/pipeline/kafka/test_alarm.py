"""Waiting for one's time, or for what cannot wait for it."""

from __future__ import annotations

import asyncio
import time

import pytest

from pipeline.kafka.alarm import LONGEST_BREATH, Alarm, breath

LONG = 60.0  # seconds: no test waits for it


async def test_it_rings_for_who_waits_and_for_who_will() -> None:
    alarm = Alarm()
    alarm.ring()
    await alarm.wait()  # rung before
    assert not alarm.waiting
    waiting = asyncio.create_task(alarm.wait(LONG))
    await asyncio.sleep(0)
    assert alarm.waiting
    alarm.ring()
    await waiting
    assert not alarm.waiting


async def test_its_time_comes() -> None:
    alarm, began = Alarm(), time.monotonic()
    await alarm.wait(0.02)
    assert time.monotonic() - began >= 0.015  # uvloop's timers are whole milliseconds
    await alarm.wait(-1)


async def test_a_wait_that_was_given_up_does_not_end_the_next() -> None:
    alarm = Alarm()
    waiting = asyncio.create_task(alarm.wait(LONG))
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert not alarm.waiting
    again = asyncio.create_task(alarm.wait(LONG))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert alarm.waiting
    assert not again.done()
    again.cancel()


def test_who_is_late_lets_others_have_a_tenth_of_the_interval() -> None:
    assert breath(0.1) == 0.01
    assert breath(15) == LONGEST_BREATH
