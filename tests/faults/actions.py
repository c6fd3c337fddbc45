"""How each fault is done, and undone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import aiohttp
from aiokafka import AIOKafkaProducer

from tests.end_to_end.traffic import Shop, logs_data, spans_data
from tests.faults.schedule import DESTINATIONS, SINKS, Fault
from tests.faults.stage import Slot, Stage

HOUR = 3600
PHANTOMS = 20  # requests of an aborted transaction
Action = Callable[[Stage, Fault], Awaitable[None]]


async def kill(stage: Stage, fault: Fault) -> None:
    async with stage.taking(fault.target) as (slot, worker):
        stage.disturbed("killed", time.monotonic(), slot=slot)
        worker.kill()
        await asyncio.sleep(fault.lasts)
        await stage.start(slot)


async def freeze(stage: Stage, fault: Fault) -> None:
    async with stage.taking(fault.target) as (slot, worker):
        began = time.monotonic()
        worker.pause()
        try:
            await asyncio.sleep(fault.lasts)
        finally:
            if fault.kind == "zombie":  # within a session nothing is sent again
                stage.disturbed("frozen", began, time.monotonic(), slot)
            worker.resume()


async def join(stage: Stage, fault: Fault) -> None:
    slot = stage.slot(stage.slots[fault.target].roles, len(stage.slots))
    await stage.start(slot)
    await asyncio.sleep(fault.lasts)
    await leave(slot)


async def leave(slot: Slot) -> None:
    """SIGTERM, and nothing is left undone."""
    assert slot.worker is not None
    await asyncio.to_thread(slot.worker.stop)
    assert slot.worker.wait() == 0, f"{slot.roles} did not end well: {slot.worker.log.read_text()[-2000:]}"


async def roll(stage: Stage, fault: Fault) -> None:
    for number in range(len(stage.slots)):
        async with stage.taking(number) as (slot, _):
            await leave(slot)
            await stage.start(slot)


async def kill_broker(stage: Stage, fault: Fault) -> None:
    await stage.restart_broker(fault.lasts)


async def freeze_broker(stage: Stage, fault: Fault) -> None:
    async with stage.broker:
        stage.disturbed("broker away", time.monotonic())
        stage.kafka.pause()
        try:
            await asyncio.sleep(fault.lasts)
        finally:
            stage.kafka.resume()


async def abort(stage: Stage, fault: Fault) -> None:
    """Spans and logs that never were: what is aborted, or open for a while and then aborted, is not to be seen."""
    pipeline, shop = stage.pipeline, Shop(-1 - fault.target)
    client = AIOKafkaProducer(
        bootstrap_servers=stage.kafka.bootstrap,
        transactional_id=f"{pipeline.name}-phantom-{fault.at}",
        transaction_timeout_ms=60_000,
    )
    async with stage.broker, client:
        await client.begin_transaction()
        for number in range(PHANTOMS):
            spans, logs = shop.request(time.time(), "error")
            await client.send(pipeline.spans_topic, spans_data(spans), partition=number % 4)
            await client.send(pipeline.logs_topic, logs_data(logs), partition=number % 4)
        await client.flush()
        await asyncio.sleep(fault.lasts)
        await client.abort_transaction()


async def no_logs(stage: Stage, fault: Fault) -> None:
    stage.feed.logs = False
    try:
        await asyncio.sleep(fault.lasts)
    finally:
        stage.feed.logs = True


async def clock(stage: Stage, fault: Fault) -> None:
    """Of one worker first, which reads a file of its own."""
    step = f"{'+' if fault.kind == 'clock ahead' else '-'}{HOUR}"
    for slots in ([stage.slots[fault.target]], stage.slots):
        for slot in slots:
            slot.clock.write_text(step)
        try:
            await asyncio.sleep(fault.lasts / 2)
        finally:
            for slot in slots:
                slot.clock.write_text("+0")


async def hinder(stage: Stage, fault: Fault) -> None:
    proxy = stage.proxies[DESTINATIONS[fault.target]]
    async with proxy.lock:
        await proxy.behave(fault.kind)
        try:
            await asyncio.sleep(fault.lasts)
        finally:
            await proxy.behave("pass")


async def roll_over(stage: Stage, fault: Fault) -> None:
    """Twice while answers are lost: what is sent again goes to another index than before."""
    proxy = stage.proxies["elasticsearch"]
    async with proxy.lock, aiohttp.ClientSession() as http:
        await proxy.behave("lose answers")
        try:
            for _ in range(2):
                await asyncio.sleep(fault.lasts / 2)
                async with http.post(f"{proxy.target}/logs-{stage.pipeline.namespace}-default/_rollover") as answer:
                    assert answer.status in (200, 404), await answer.text()  # 404: nothing was written yet
        finally:
            await proxy.behave("pass")


ACTIONS: dict[str, Action] = {
    "kill": kill,
    "freeze": freeze,
    "zombie": freeze,
    "join": join,
    "roll": roll,
    "kill broker": kill_broker,
    "freeze broker": freeze_broker,
    "abort": abort,
    "hang": abort,
    "no logs": no_logs,
    "clock ahead": clock,
    "clock behind": clock,
    **dict.fromkeys(SINKS, hinder),
    "roll over": roll_over,
}
