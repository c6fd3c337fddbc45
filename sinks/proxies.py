"""The proxy of the environment between a sink and its destination.

aiohttp's own `trust_env` would take credentials from ~/.netrc as well, and would ask a proxy for this machine.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from yarl import URL

from schemas.errors import Unavailable
from schemas.settings import is_loopback
from sinks.settings import is_host

NO_URL = "is no URL of a proxy: http://HOST:PORT, with USER:PASSWORD@ before the host if it wants to know who asks"
SCHEMES = ("http", "https")
_BREAKS = re.compile(r"[/?#\s]")  # ends user and password where it is not escaped


def proxy_of(url: str, schemes: Sequence[str] = SCHEMES) -> str | None:
    """The proxy that the environment names for a URL, as for other programs; None: there is none on the way.

    Raises Unavailable where what it names is no URL of a proxy, or one of another scheme than these. Its text has the
    variable and nothing that is in it.
    """
    server = urlsplit(url)
    if is_loopback(server.hostname or "") or proxy_bypass(server.netloc):
        return None
    named = getproxies().get(server.scheme)
    if not named:
        return None
    scheme, _, rest = named.partition("://") if "://" in named else ("http", "", named)
    if wrong := _wrong(scheme.lower(), rest, schemes):
        variable = f"{server.scheme}_proxy"
        told = variable if variable in os.environ else variable.upper()
        raise Unavailable(f"{told}: {wrong}", asked=False)
    return f"{scheme.lower()}://{rest}"


def _wrong(scheme: str, rest: str, schemes: Sequence[str]) -> str:
    """The rule that a proxy's URL breaks; "" if it may be used."""
    login, _, _ = rest.rpartition("@")
    if _BREAKS.search(login):
        return "user and password must be percent-encoded: / is %2F, # is %23, ? is %3F, a space is %20"
    if scheme not in schemes:
        return f"must begin with {' or '.join(f'{each}://' for each in schemes)} here: no other proxy can be used"
    try:
        url = URL(f"{scheme}://{rest}")
        f"{url.user}:{url.password}".encode("latin1")  # as aiohttp has it
    except ValueError:  # its words have the password
        return NO_URL
    return "" if url.host and is_host(url.host) and ":" not in (url.user or "") else NO_URL
