"""One HTTP client for sinks: TLS, credentials, gzip, time-outs; and what an answer means.

An answer is one of three: accepted (2xx, unless it is a web page); refused because of what is in the request
(`REFUSING`), which sending parts of it narrows down to the item; anything else, which says nothing about the items, so
they are sent again for ever. Credentials that expired (401, 403) and a wrong path (404) are of the last kind: an
operator puts them right, and nothing is lost meanwhile. That is stricter than OTLP and remote write ask for: their
clients would lose the data.
"""

from __future__ import annotations

import asyncio
import base64
import email.utils
import html
import json
import os
import ssl
import time
import zlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from http import HTTPStatus
from http.client import responses
from itertools import accumulate, chain, pairwise
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote_plus, urlsplit

import aiohttp
from multidict import CIMultiDict
from yarl import URL

from schemas.errors import ConfigError
from schemas.http_client import in_words
from schemas.settings import REDACTED
from schemas.tls import trusting
from sinks.contract import Outcome, Refusal, Request, Unavailable
from sinks.proxies import proxy_of
from sinks.settings import Sink, SinkAuth, is_one_line

USER_AGENT = "tailrace/0.1"
REFUSING = frozenset({400, 413, 422})  # 409 as well where a destination uses it so: vmagent drops on 400 and 409
PAGES = frozenset({"text/html", "application/xhtml+xml"})
WEB_PAGE = "web_page"  # the reason of a retry after a success of something that is no receiver
NO_RECEIVER = "a web page, no receiver: is the endpoint that of a user interface, or is a login in front of it?"
AWAY = frozenset({502, 503, 504})  # the server, or what is behind its proxy, is not there: another one may be
ANSWER_BYTES = 64 << 10  # of an answer that are read: enough for every error text seen
DETAIL_CHARACTERS = 500  # of an error text that go into logs and dead letters
GO_JSON = {ord(each): f"\\u{ord(each):04x}" for each in "<>&"}  # what Go escapes in JSON, beside what must be
SHORTEST_SECRET = 4  # characters of a parameter; shorter ones would leave holes in any text
GZIP_LEVEL = 1  # 4 to 5 times faster than the default 6, for about 10 % more bytes of OTLP
HALF_PAUSE = 1.0  # seconds: a look takes 0.1 s of the loop, with the system's authorities
GZIP_WINDOW = 31  # zlib's number for a gzip header and a 32 KiB window

ELASTIC_PRODUCT = ("X-Elastic-Product", "Elasticsearch")  # a header of every answer of Elasticsearch
NO_ELASTICSEARCH = (
    "answers without X-Elastic-Product: Elasticsearch, so its client does not believe it: a proxy before Elasticsearch "
    "must leave that header in; OpenSearch is not supported, an otlp sink to a Collector or Data Prepper reaches it"
)

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server said to a request to `url`."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    url: str

    @property
    def ok(self) -> bool:
        """Whether a receiver took the request."""
        return 200 <= self.status < 300 and not self.is_page

    @property
    def is_page(self) -> bool:
        """Whether it is a success for people: Jaeger's user interface and many a login give any POST a page and 200."""
        if not self.body:  # Flask says text/html of nothing at all
            return False
        return 200 <= self.status < 300 and self.media_type in PAGES

    @property
    def media_type(self) -> str:
        """That of the body, in lower case; "" if nothing says it."""
        return self.headers.get("Content-Type", "").partition(";")[0].strip().lower()

    @property
    def text(self) -> str:
        """The server's own text, to decide by: it may repeat secrets of the URL."""
        return self.body.decode("utf-8", "replace")

    @property
    def said(self) -> str:
        """The server's own text, to be shown."""
        return unsaid(self.url, self.text)

    @property
    def detail(self) -> str:
        """The status and what was said, cut."""
        return in_short(self.status, self.headers, self.said)

    @property
    def of_page(self) -> str:
        """What to say of a page that stands where a receiver should."""
        return f"{self.status} {self.media_type}: {NO_RECEIVER}"

    @property
    def rejected(self) -> Rejected:
        """Where the answer is one to what is in the request."""
        return Rejected(self.detail, self.said, self.text)


@dataclass(frozen=True, slots=True)
class Rejected:
    """A request was refused because of at least one of its items; none of them is known to be accepted.

    `detail` and `said` as in `Refusal`, `text` as in `Answer`.
    """

    detail: str
    said: str = ""
    text: str = field(default="", repr=False, compare=False)


class HttpClient:
    """Posts bodies with the settings of one sink. `clock` gives seconds since the epoch (for Retry-After dates)."""

    def __init__(self, settings: Sink, clock: Callable[[], float] = time.time) -> None:
        self._settings, self._clock = settings, clock
        self._session: aiohttp.ClientSession | None = None
        self._tls: Tls | None = None

    async def open(self) -> None:
        """Read the certificates, make the connection pool. Connects to nothing yet. Raises ConfigError."""
        if self._session is None:
            self._tls = Tls.of(self._settings)
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0),
                timeout=aiohttp.ClientTimeout(total=self._settings.timeout),
                auto_decompress=True,
            )

    async def close(self) -> None:
        """Close every connection."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def post(self, url: str, body: bytes, headers: Mapping[str, str], *, gzip: bool = False) -> Answer:
        """Send a body and read the answer. Raises Unavailable when there is none.

        The sink's own `headers` come first: they cannot override those of the protocol.
        """
        if self._session is None:
            raise RuntimeError("the client is not open")
        if self._tls is not None:
            self._tls.look()
        tls = True if self._tls is None else self._tls.context  # connections that began with another are not used again
        sent = CIMultiDict(self._settings.headers)
        sent.update({"User-Agent": USER_AGENT} | authorization(self._settings.auth) | dict(headers))
        if gzip:
            body = await asyncio.to_thread(compressed, body)  # releases the interpreter for other requests
            sent["Content-Encoding"] = "gzip"
        try:
            proxy = proxy_of(url)
            async with self._session.post(
                url, data=body, headers=sent, ssl=tls, proxy=proxy, allow_redirects=False
            ) as response:
                answer = await response.content.read(ANSWER_BYTES)
                while len(answer) < ANSWER_BYTES and (more := await response.content.read(ANSWER_BYTES - len(answer))):
                    answer += more
                return Answer(response.status, response.headers, answer, url)
        except TimeoutError:
            raise Unavailable(f"no answer within {self._settings.timeout:g} s") from None
        except (aiohttp.ClientError, OSError) as error:
            connected = not isinstance(error, aiohttp.ClientConnectorError)
            raise Unavailable(f"{type(error).__name__}: {in_words(error)}", asked=connected) from error

    def outcome(self, answer: Answer, items: int, refusing: frozenset[int] = REFUSING) -> Outcome | Rejected:
        """What an answer says of the `items` of its request, if it says one thing of them all."""
        if answer.ok:
            return Outcome(accepted=items)
        if answer.is_page:
            return Outcome.retry_all(items, WEB_PAGE, answer.of_page)
        if answer.status in refusing:
            return answer.rejected
        wait = retry_after(answer.headers, self._clock())
        lost = answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR  # of a proxy, or half of the work was done
        return Outcome.retry_all(items, str(answer.status), answer.detail, wait, lost)


async def bisect(
    request: Request[Any], items: Sequence[T], attempt: Callable[[Sequence[T]], Awaitable[Outcome | Rejected]]
) -> Outcome:
    """Attempt `items`, the rows of a request; halve what is rejected until the refused ones stand alone.

    One bad item in n costs about 2 log2(n) further requests. Once a part has to be sent again, or none is wanted any
    more, the parts not yet attempted are sent again too, each on its own: where requests are limited a halving that
    begins anew would never end. Raises Unavailable only if nothing was answered at all.
    """
    outcome = Outcome()
    ends = accumulate(request.parts or (len(items),), initial=0)
    parts = [*pairwise(ends)][::-1]
    while parts and not outcome.retry and await request.wanted():
        start, end = parts.pop()
        try:
            result = await attempt(items[start:end])
        except Unavailable as error:
            if end - start == len(items):
                raise
            result = Outcome.unanswered(end - start, error)
        if isinstance(result, Outcome):
            outcome += result.shifted(start)
        elif end - start == 1:
            said = "" if outcome.refused else result.said  # one is logged, and each may be a page
            outcome += Outcome(refused=(Refusal(start, result.detail, said=said),))
        else:
            middle = (start + end) // 2
            parts += [(middle, end), (start, middle)]
        if isinstance(result, Rejected) and result.detail and len(items) > 1:  # without: nobody was asked
            request.rejected(result.said or result.detail, len(outcome.refused))
    if not parts:
        return outcome
    unasked = [range(*part) for part in reversed(parts)]
    retry = tuple(chain(outcome.retry, *unasked))
    return replace(outcome, retry=retry, parts=tuple(len(part) for part in (outcome.retry, *unasked) if part))


def unsaid(url: str, answer: str) -> str:
    """An answer to a request without what it repeats of the URL's parameters, which may be secret.

    >>> unsaid("https://influx:8086/write?db=metrics&p=s3%2Fret&v=1", "1 user: s3/ret may not write (?p=s3/ret)")
    '1 user: ********** may not write (?**********)'
    """
    found: set[str] = set()
    for query in {urlsplit(url).query, URL(url).raw_query_string} - {""}:  # as it was given, and as it was sent
        for parameter in query.split("&"):
            value = parameter.partition("=")[2] or parameter
            found |= {parameter, unquote_plus(parameter), value, unquote_plus(value)}
    forms = {form for text in found if len(text) >= SHORTEST_SECRET for form in _forms(text)}
    for form in sorted(forms, key=len, reverse=True):
        answer = answer.replace(form, REDACTED)
    return answer


def _forms(text: str) -> set[str]:
    """It, and as JSON and HTML have it: Go escapes other characters, and some otherwise."""
    quoted = [json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]]
    escaped = html.escape(text)
    go = escaped.replace("&quot;", "&#34;").replace("&#x27;", "&#39;")
    return {text, *quoted, *(each.translate(GO_JSON) for each in quoted), escaped, go}


def elsewhere(status: int, headers: Mapping[str, str]) -> str:
    """What to do about an answer that points elsewhere, without the parameters of where; "" of any other.

    >>> elsewhere(308, {"Location": "https://there:4318/v1/traces?token=a"})
    'no redirect is followed: set the endpoint to what it is (https://there:4318/v1/traces)'
    """
    location = headers.get("Location", "").partition("?")[0] if 300 <= status < 400 else ""
    return location and f"no redirect is followed: set the endpoint to what it is ({location})"


def in_short(status: int, headers: Mapping[str, str], said: str) -> str:
    """An answer as one line: where it points to, or what was said with it, cut; of one without a word what it means.

    >>> in_short(503, {}, ""), in_short(503, {}, "try later"), in_short(599, {}, "")
    ('503 Service Unavailable', '503 try later', '599')
    """
    return f"{status} {shortened(elsewhere(status, headers) or said or responses.get(status, ''))}".strip()


def compressed(body: bytes) -> bytes:
    """The body as gzip, always the same bytes for the same body (no time in the header)."""
    packer = zlib.compressobj(GZIP_LEVEL, zlib.DEFLATED, GZIP_WINDOW)
    return packer.compress(body) + packer.flush()


def authorization(auth: SinkAuth) -> dict[str, str]:
    """The Authorization header of these credentials as of now, if there are any.

    Raises Unavailable for a token's file that cannot be read.
    """
    if auth.username is not None and auth.password is not None:
        pair = base64.b64encode(f"{auth.username}:{auth.password.get_secret_value()}".encode())
        return {"Authorization": f"Basic {pair.decode()}"}
    if auth.bearer_token is not None:
        return {"Authorization": f"Bearer {auth.bearer_token.get_secret_value()}"}
    if auth.bearer_token_file is not None:
        return {"Authorization": f"Bearer {_token(auth.bearer_token_file)}"}
    if auth.api_key is not None:
        return {"Authorization": f"ApiKey {auth.api_key.get_secret_value()}"}
    return {}


def _token(file: str) -> str:
    """What is in a token's file: some hundred bytes, mostly out of memory."""
    try:
        token = Path(file).read_text("utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise Unavailable(f"auth.bearer_token_file: {error}", asked=False) from error
    if not token or not is_one_line(token):
        raise Unavailable(f"auth.bearer_token_file: {file} does not hold a token", asked=False)
    return token


class Tls:
    """TLS with a sink's authorities (unset: the system's) and client certificate, if it has one.

    `context` is for connections that begin now; another one as soon as files that were renewed have been read.
    `clock` gives seconds. Raises ConfigError naming the key whose file cannot be used.
    """

    def __init__(self, settings: Sink, clock: Callable[[], float] = time.monotonic) -> None:
        self._settings, self._clock = settings, clock
        self._stamps = stamps(settings)
        self._half: tuple[tuple[int, int], ...] | None = None  # files that could not be used,
        self._again = 0.0  # and when they are tried again
        self.context = self._made()

    @classmethod
    def of(cls, settings: Sink) -> Tls | None:
        """That of a sink with a server that is reached over TLS."""
        return cls(settings) if any(url.startswith("https:") for url in settings.urls) else None

    def look(self) -> bool:
        """Read files that have changed, and whether there is another `context` since.

        Half of a renewal, as a certificate without its key, is tried again as soon as a file changes once more, or
        after HALF_PAUSE: what was written in the same tick of the file system's clock shows no change.
        """
        if (now := stamps(self._settings)) == self._stamps or (now == self._half and self._clock() < self._again):
            return False
        try:
            self.context = self._made()
        except ConfigError:
            self._half, self._again = now, self._clock() + HALF_PAUSE
            return False
        self._stamps = now
        return True

    def _made(self) -> ssl.SSLContext:
        """Made anew each time: a context never forgets an authority."""
        context, settings = trusting(self._settings.ca_file, "ca_file"), self._settings
        try:
            if settings.cert_file is not None:  # "": never ask on the terminal
                context.load_cert_chain(settings.cert_file, settings.key_file, "")
        except OSError as error:
            raise ConfigError(f"cert_file: {settings.cert_file}: {error}") from error
        return context


def stamps(settings: Sink) -> tuple[tuple[int, int], ...]:
    """What changes when one of a sink's files is renewed; one that cannot be looked at counts as it would if empty."""
    found = []
    for file in (settings.ca_file, settings.cert_file, settings.key_file):
        try:
            about = os.stat(file or "")
            found.append((about.st_mtime_ns, about.st_ino))
        except OSError:
            found.append((0, 0))
    return tuple(found)


def retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds of a Retry-After header, which is a number or a date (RFC 9110, 10.2.3); None for none or nonsense.

    >>> retry_after({"Retry-After": "3"}, 0), retry_after({"Retry-After": "Thu, 01 Jan 1970 00:01:00 GMT"}, 50)
    (3.0, 10.0)
    """
    text = headers.get("Retry-After", "").strip()
    if text.isascii() and text.isdecimal():
        return float(text)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - now)
    except (ValueError, TypeError, OverflowError):
        return None


def shortened(text: str) -> str:
    """An error text on one line, cut to DETAIL_CHARACTERS."""
    line = " ".join(text.split())
    return line if len(line) <= DETAIL_CHARACTERS else f"{line[:DETAIL_CHARACTERS]}…"
