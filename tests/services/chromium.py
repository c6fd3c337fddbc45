"""A headless Chromium, driven by the DevTools protocol: open a page, ask it, look at it.

Source: https://chromedevtools.github.io/devtools-protocol/ (Page, Runtime, Emulation).
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp

from tests.services.process import HOST, Server, answers, free_port
from tests.services.recipes import ensure

ANSWER_SECONDS = 30.0


class PageError(AssertionError):
    """What a page raised, or said on its console as an error."""


class Chromium(Server):
    """A browser without a window."""

    name = "chromium"

    def __init__(self) -> None:
        super().__init__()
        self.port = free_port()

    def command(self) -> list[str]:
        flags = [
            "headless=new",
            "no-sandbox",
            "disable-gpu",
            "hide-scrollbars",
            "no-first-run",
            "disable-dev-shm-usage",
        ]
        flags += ["disable-background-networking", "force-color-profile=srgb"]
        flags += [f"user-data-dir={self.data / 'profile'}", f"remote-debugging-port={self.port}"]
        return [str(ensure("chromium") / "chromium"), *(f"--{flag}" for flag in flags), "about:blank"]

    def is_ready(self) -> bool:
        return answers(f"http://{HOST}:{self.port}/json/version")

    @contextlib.asynccontextmanager
    async def tab(self, url: str, width: int = 1280, height: int = 800, dark: bool = False) -> AsyncIterator[Tab]:
        """A page of this size; what it raises or logs as an error is raised on the way out."""
        async with (
            aiohttp.ClientSession() as session,
            session.put(f"http://{HOST}:{self.port}/json/new?about:blank") as opened,
            session.ws_connect((await opened.json())["webSocketDebuggerUrl"], max_msg_size=0) as socket,
        ):
            tab = Tab(socket)
            reading = asyncio.create_task(tab.read())
            try:
                for domain in ("Page", "Runtime", "Log"):
                    await tab.call(f"{domain}.enable")
                await tab.resize(width, height)
                scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
                await tab.call("Emulation.setEmulatedMedia", features=[scheme])
                await tab.call("Page.navigate", url=url)
                yield tab
                await tab.call("Page.close")
            finally:
                reading.cancel()
        if tab.errors:
            raise PageError("\n".join(tab.errors))


class Tab:
    """One page."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self.errors: list[str] = []

    async def read(self) -> None:
        """Answers to their callers, errors to `errors`."""
        async for message in self._socket:
            told = json.loads(message.data)
            if (waiting := self._waiting.pop(told.get("id"), None)) is not None:
                waiting.set_result(told)
            elif told.get("method") == "Runtime.exceptionThrown":
                self.errors.append(json.dumps(told["params"]["exceptionDetails"]))
            elif told.get("method") == "Log.entryAdded" and told["params"]["entry"]["level"] == "error":
                self.errors.append(json.dumps(told["params"]["entry"]))

    async def call(self, method: str, **parameters: Any) -> Any:
        """The result of a command."""
        number = next(self._numbers)
        self._waiting[number] = answer = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        told = await asyncio.wait_for(answer, ANSWER_SECONDS)
        if "error" in told:
            raise PageError(f"{method}: {told['error']['message']}")
        return told["result"]

    async def ask(self, expression: str) -> Any:
        """The value of a JavaScript expression (JSON)."""
        told = await self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in told:
            raise PageError(json.dumps(told["exceptionDetails"]))
        return told["result"].get("value")

    async def resize(self, width: int, height: int) -> None:
        """Another size of the window."""
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )

    async def picture(self, whole: bool = False) -> bytes:
        """A PNG of what is to be seen, or of the whole page."""
        taken = await self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        return base64.b64decode(taken["data"])
