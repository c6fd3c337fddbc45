"""Errors of aiohttp as text."""

from __future__ import annotations

import re

from schemas.settings import without_parameters

# aiohttp names what it would do about TLS, of plain HTTP too: "Cannot connect to host a:80 ssl:default [refused]".
# Of a proxy: no URL of a configuration may have one. A password that nobody has escaped may have any character.
_USER = re.compile(r"(?<=://)\S*@")
_TLS = re.compile(r"^(Cannot connect to (?:host|unix socket) \S+) ssl:(?:<.*?>|\S+)")


def in_words(error: BaseException) -> str:
    """What went wrong, without a URL's parameters and user, and what reads like TLS where there is none.

    Of an error without a text, its type.

    >>> in_words(OSError("Cannot connect to host a:80 ssl:default [refused]")), in_words(TimeoutError())
    ('Cannot connect to host a:80 [refused]', 'TimeoutError')
    >>> in_words(OSError("403, message='Forbidden', url='http://user:s3cret@proxy:3128'"))
    "403, message='Forbidden', url='http://proxy:3128'"
    """
    return without_parameters(_USER.sub("", _TLS.sub(r"\1", str(error)))) or type(error).__name__
