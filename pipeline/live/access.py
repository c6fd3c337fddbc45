"""Who may see the page: whoever is on this machine, or whoever has the token.

Beyond loopback a token is a must (pipeline/config.py refuses the file otherwise). On loopback without one, requests
must name loopback as their host: a foreign name that resolves to 127.0.0.1 (DNS rebinding) would let any web page that
a developer visits read the data. Nothing here answers across origins.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from aiohttp import web
from pydantic import SecretStr

from schemas.settings import is_loopback

COOKIE = "tailrace_live"
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Guard:
    """Wraps the handlers of the page. `root` is where a token in the address leads, once it is a cookie."""

    def __init__(self, token: SecretStr | None, root: str) -> None:
        self._token = token.get_secret_value().encode() if token else b""
        # Not the token itself: a cookie jar is no place for it.
        self._cookie = hmac.new(self._token, b"tailrace live page", hashlib.sha256).hexdigest() if token else ""
        self._root = root

    def __call__(self, handler: Handler) -> Handler:
        """The handler for those who may; 403 for a foreign host, 401 without the token."""

        async def guarded(request: web.Request) -> web.StreamResponse:
            refusal = self._refused(request)
            response = await handler(request) if refusal is None else refusal
            if not response.prepared:
                response.headers.update(HEADERS)
            return response

        return guarded

    def _refused(self, request: web.Request) -> web.Response | None:
        if not self._token:
            if is_loopback(_host(request)):
                return None
            return web.Response(status=403, text="this page is for loopback only: ask for it as 127.0.0.1\n")
        scheme, _, sent = request.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._is_token(sent.strip()):
            return None
        if hmac.compare_digest(_bytes(request.cookies.get(COOKIE, "")), self._cookie.encode()):
            return None
        if self._is_token(request.query.get("token", "")):
            return self._remembered(request)
        text = "the live page wants its token: open /live?token=…, or send it as a bearer token\n"
        return web.Response(status=401, text=text, headers={"WWW-Authenticate": 'Bearer realm="tailrace"'})

    def _is_token(self, sent: str) -> bool:
        return hmac.compare_digest(_bytes(sent), self._token)

    def _remembered(self, request: web.Request) -> web.Response:
        """The address without the token: it must not stay in histories and screenshots."""
        response = web.Response(status=303, headers={"Location": self._root})
        response.set_cookie(
            COOKIE, self._cookie, path=self._root, httponly=True, samesite="Strict", secure=request.secure
        )
        return response


def _host(request: web.Request) -> str:
    """The name by which the client asked, without the port; empty for what is none."""
    try:
        return urlsplit(f"//{request.headers.get('Host', '')}").hostname or ""
    except ValueError:
        return ""


def _bytes(sent: str) -> bytes:
    """As it came: aiohttp decodes headers with surrogates for what is not UTF-8."""
    return sent.encode(errors="surrogateescape")
