"""A server that is not there, in words."""

from __future__ import annotations

import ssl

import aiohttp
import pytest

from schemas.http_client import in_words
from tests.services.process import free_port


@pytest.mark.parametrize(
    ("scheme", "tls"), [("http", True), ("https", True), ("https", ssl.create_default_context()), ("https", False)]
)
async def test_a_server_that_is_not_there_is_no_matter_of_tls(scheme: str, tls: ssl.SSLContext | bool) -> None:
    port = free_port()
    async with aiohttp.ClientSession() as session:
        with pytest.raises(aiohttp.ClientConnectorError, match="ssl") as caught:
            await session.get(f"{scheme}://127.0.0.1:{port}", ssl=tls)
    said = in_words(caught.value)
    assert said.startswith(f"Cannot connect to host 127.0.0.1:{port} [")
    assert "ssl" not in said


@pytest.mark.parametrize("password", ["s3cret", "s3/cret", "s3#cret", "s3@cret"])
def test_a_password_is_hidden_whatever_is_in_it(password: str) -> None:
    assert in_words(aiohttp.InvalidURL(f"http://user:{password}@proxy:3128")) == "http://proxy:3128"
