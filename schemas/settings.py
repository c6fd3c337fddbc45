"""What every part of the configuration file is made of: frozen sections and durations."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from decimal import Decimal
from ipaddress import ip_address
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, StringConstraints
from pydantic_core import PydanticCustomError

Broken = tuple[tuple[str | int, ...], str]
"""A path below the section that was validated, and the rule that does not hold there."""

REDACTED = "**********"
"""What is printed instead of a secret, as pydantic does."""

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


def parse_duration(text: Any) -> float:
    """Seconds of a duration such as `1h30m`; raises ValueError for anything else.

    >>> parse_duration("1h30m")
    5400.0
    """
    if isinstance(text, str) and text and not _DURATION.sub("", text):
        return sum(float(number) * _UNITS[unit] for number, unit in _DURATION.findall(text))
    shown = "nothing" if text is None else repr(text)
    raise ValueError(f"{shown} is not a duration; write a number with a unit, such as 500ms, 30s, 15m or 2h")


def format_duration(seconds: float) -> str:
    """The exact inverse of `parse_duration`, for printing: in seconds, below one in milliseconds where they are exact.

    >>> format_duration(30 * 86400.0), format_duration(0.5)
    ('2592000s', '500ms')
    """
    exact = Decimal(repr(seconds))
    milliseconds = f"{(exact * 1000).normalize():f}ms"
    return milliseconds if 0 < seconds < 1 and parse_duration(milliseconds) == seconds else f"{exact.normalize():f}s"


DURATION_PATTERN = rf"^({_DURATION.pattern})+$"
"""A duration as it is written, for editors."""

Duration = Annotated[
    float,
    Field(allow_inf_nan=False),
    BeforeValidator(
        lambda value: value if isinstance(value, float) else parse_duration(value),
        json_schema_input_type=Annotated[str, StringConstraints(pattern=DURATION_PATTERN)],
    ),
    PlainSerializer(format_duration),
]

URL_PATTERN = r"^https?://"
Url = Annotated[str, StringConstraints(pattern=URL_PATTERN)]

_PARAMETERS = re.compile(r"(\w+://[^\s?]*\?).*", re.DOTALL)
_SECRET_NAMES = ("auth", "token", "key", "secret", "cookie", "password")


def is_secret_name(name: str) -> bool:
    """Whether a header or a parameter of this name may hold a credential: it is never printed.

    >>> is_secret_name("X-Api-Key"), is_secret_name("X-Scope-OrgID")
    (True, False)
    """
    return any(word in name.lower() for word in _SECRET_NAMES)


def without_credentials(url: str) -> str:
    """A URL, or what was to be one, without the user, the password and the parameters that may be secret.

    >>> without_credentials("https://elastic:s3cr@t@es:9200/a?api_key=s3cret&b=1")
    'https://**********@es:9200/a?api_key=**********&b=1'
    """
    scheme, mark, rest = url.partition("://") if "://" in url else ("", "", url)
    _, at, place = rest.rpartition("@")
    shown = f"{scheme}{mark}{REDACTED}@{place}" if at else url
    before, question, query = shown.partition("?")
    told = [
        f"{name}={REDACTED}" if equals and is_secret_name(name) else name + equals + value
        for name, equals, value in (parameter.partition("=") for parameter in query.split("&"))
    ]
    return before + question + "&".join(told)


def without_parameters(text: str) -> str:
    """A URL, or a text that ends with one, without any parameter: nobody knows which are secret where it is logged.

    >>> without_parameters("https://influx:8086/write?db=a&p=s3cret"), without_parameters("400, url='http://a/?b'")
    ('https://influx:8086/write?**********', "400, url='http://a/?**********")
    """
    return _PARAMETERS.sub(rf"\1{REDACTED}", text)


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address; a name other than localhost may lead anywhere.

    >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("0.0.0.0"), is_loopback("localhost.example")
    (True, True, False, False)
    """
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


class Section(BaseModel):
    """A part of the file: frozen, unknown keys refused; an error's text does not quote what was given."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


def repeated(texts: Iterable[tuple[int, str]]) -> Iterator[tuple[int, str, int]]:
    """Of texts by their places those that were there before: place, text, and the place of the first one."""
    first: dict[str, int] = {}
    for place, text in texts:
        if (other := first.setdefault(text, place)) < place:
            yield place, text, other


def refuse(broken: Iterable[Broken]) -> None:
    """Raise one validation error that carries every broken rule; do nothing if there is none."""
    found = list(broken)
    if found:
        text = "; ".join(f"{'.'.join(map(str, path))}: {rule}" for path, rule in found)
        raise PydanticCustomError("rules", "{text}", {"text": text, "broken": found})
