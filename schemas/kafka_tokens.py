"""Where OAUTHBEARER tokens come from: a file that something else keeps fresh, or an OIDC provider.

A client asks for a token whenever it connects. One that is not to be had is an error of Kafka's client, too: anything
else would end the tasks that aiokafka fetches and sends with, instead of being tried again.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from aiokafka.abc import AbstractTokenProvider
from aiokafka.errors import KafkaConnectionError
from pydantic import SecretStr

from schemas.errors import Unavailable
from schemas.http_client import in_words

ANSWER_LIMIT = 10.0  # seconds that a provider may take
RENEW_AT = 0.8  # of a token's life, as sasl.login.refresh.window.factor of Kafka's own clients
SHORTEST_LIFE = 60.0  # seconds of a token whose answer says nothing of it
SAID_CHARACTERS = 200  # of a provider's own error that are told


class NoToken(Unavailable, KafkaConnectionError):  # type: ignore[misc]
    """There is no token now; the text names the key."""


class TokenFile(AbstractTokenProvider):  # type: ignore[misc]
    """Tokens out of a file such as a projected service account token, read anew for every connection: they rotate.

    `key` is the setting's path.
    """

    def __init__(self, path: str, key: str) -> None:
        self._path, self._key = Path(path), key

    async def token(self) -> str:
        """The current token. Raises NoToken while it cannot be read."""
        try:
            text = (await asyncio.to_thread(self._path.read_text, "utf-8")).strip()
        except (OSError, UnicodeDecodeError) as error:
            raise NoToken(f"{self._key}: {error}") from error
        if not text:
            raise NoToken(f"{self._key}: {self._path} is empty")
        return text


@dataclass(frozen=True, slots=True)
class Client:
    """What a client is to its OIDC provider; `url` is the token endpoint."""

    url: str
    id: str
    secret: SecretStr
    scope: str | None = None


class ClientCredentials(AbstractTokenProvider):  # type: ignore[misc]
    """Tokens of an OIDC provider (RFC 6749, 4.4), got as Kafka's own clients get them (KIP-768).

    One token serves every connection until most of its life is over. `key` is the setting's path; `tls` is for the
    endpoint, None: the system's authorities.
    """

    def __init__(
        self, client: Client, tls: ssl.SSLContext | None, key: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._client, self._tls, self._key, self._clock = client, tls, key, clock
        self._token, self._renew_at = "", 0.0
        self._turn = asyncio.Lock()

    async def token(self) -> str:
        """The current token. Raises NoToken while the provider gives none."""
        async with self._turn:
            now = self._clock()
            if not self._token or now >= self._renew_at:
                self._token, life = await self._asked()
                self._renew_at = now + RENEW_AT * life
            return self._token

    async def _asked(self) -> tuple[str, float]:
        """A new token and its life in seconds."""
        import aiohttp  # 100 ms that no configuration without a provider should wait for

        client = self._client
        form = {"grant_type": "client_credentials"} | ({"scope": client.scope} if client.scope else {})
        # Both are form-urlencoded before they become a header (RFC 6749, 2.3.1).
        login = f"{quote(client.id, safe='')}:{quote(client.secret.get_secret_value(), safe='')}"
        headers = {"Authorization": f"Basic {b64encode(login.encode()).decode()}"}
        try:
            async with (
                aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=ANSWER_LIMIT)) as session,
                session.post(
                    client.url, data=form, headers=headers, ssl=self._tls or True, allow_redirects=False
                ) as answer,
            ):
                status, content = answer.status, await answer.json(content_type=None)
        except TimeoutError:
            raise NoToken(f"{self._key}: {client.url}: no answer within {ANSWER_LIMIT:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise NoToken(f"{self._key}: {client.url}: {type(error).__name__}: {in_words(error)}") from error
        answered = content if isinstance(content, dict) else {}
        token = answered.get("access_token")
        if status != 200 or not isinstance(token, str) or not token:
            said = str(answered.get("error_description") or answered.get("error") or "no access_token in the answer")
            raise NoToken(f"{self._key}: {client.url} answers {status}: {said[:SAID_CHARACTERS]}")
        life = answered.get("expires_in")
        return token, float(life) if isinstance(life, int | float) and life > 0 else SHORTEST_LIFE
