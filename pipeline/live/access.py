"""Who may see the live page: whoever may see the others (watching/access.py), in a browser by a cookie as well.

Nothing here answers across origins.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Awaitable, Callable

from aiohttp import web

from pipeline.watching.access import Access, same
from pipeline.watching.settings import Telemetry

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


class Guard(Access):
    """Wraps the handlers of the page. `root` is where a token in the address leads, once it is a cookie."""

    def __init__(self, settings: Telemetry, root: str) -> None:
        super().__init__(settings)
        # Not the token itself: a cookie jar is no place for it.
        self._cookie = hmac.new(self.token, b"tailrace live page", hashlib.sha256).hexdigest()
        self._root = root

    def __call__(self, handler: Handler) -> Handler:
        """The handler for those who may; 403 for a foreign host, 401 without the token."""

        async def guarded(request: web.Request) -> web.StreamResponse:
            refusal = self.refusal(request)
            response = await handler(request) if refusal is None else refusal
            if not response.prepared:
                response.headers.update(HEADERS)
            return response

        return guarded

    def refusal(self, request: web.Request) -> web.Response | None:
        """None also with the cookie; a token in the address is answered with it."""
        refusal = super().refusal(request)
        if refusal is None or not self.token:
            return refusal
        if same(request.cookies.get(COOKIE, ""), self._cookie.encode()):
            return None
        return self._remembered(request) if same(request.query.get("token", ""), self.token) else refusal

    def _remembered(self, request: web.Request) -> web.Response:
        """The address without the token: it must not stay in histories and screenshots."""
        response = web.Response(status=303, headers={"Location": self._root})
        response.set_cookie(
            COOKIE, self._cookie, path=self._root, httponly=True, samesite="Strict", secure=request.secure
        )
        return response
