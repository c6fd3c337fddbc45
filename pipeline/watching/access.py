"""Who may see a worker's pages: whoever has the token, or whoever is on this machine.

Beyond loopback a token is a must (pipeline/watching/settings.py refuses the file otherwise). On loopback without one,
requests must name loopback as their host: a foreign name that resolves to 127.0.0.1 (DNS rebinding) would let any web
page that a developer visits read the data.
"""

from __future__ import annotations

import hmac
from urllib.parse import urlsplit

from aiohttp import web

from pipeline.watching.settings import Telemetry
from schemas.settings import is_loopback


class Access:
    """By bearer token, or by being here."""

    def __init__(self, settings: Telemetry) -> None:
        self.token = settings.bearer.encode()
        self._local = is_loopback(settings.host)

    def refusal(self, request: web.Request) -> web.Response | None:
        """None for those who may; 403 for a foreign host, 401 without the token."""
        if not self.token:
            if self._local and is_loopback(_host(request)):
                return None
            return web.Response(status=403, text="this page is for loopback only: ask for it as 127.0.0.1\n")
        scheme, _, sent = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer" and same(sent.strip(), self.token):
            return None
        text = "this page wants telemetry.token: send it as a bearer token, or to the live page as /live?token=…\n"
        return web.Response(status=401, text=text, headers={"WWW-Authenticate": 'Bearer realm="tailrace"'})


def same(sent: str, kept: bytes) -> bool:
    """Whether a secret came as it should, in a time that does not tell how much of it is right."""
    # aiohttp decodes headers with surrogates for what is not UTF-8.
    return hmac.compare_digest(sent.encode(errors="surrogateescape"), kept)


def _host(request: web.Request) -> str:
    """The name by which the client asked, without the port; empty for what is none."""
    try:
        return urlsplit(f"//{request.headers.get('Host', '')}").hostname or ""
    except ValueError:
        return ""
