"""A worker's own log: one JSON object per line on standard error, for a collector to pick up."""

from __future__ import annotations

import datetime
import json
import logging
import math
import sys
from typing import Any, TextIO

import orjson

from schemas.errors import TailraceError
from schemas.settings import REDACTED

# What every LogRecord has; anything else on a record came in by `extra=`.
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
# Libraries that narrate what the worker says itself, or nobody needs.
_CHATTY = ("aiokafka", "faust", "mode", "elasticsearch", "asyncio")
# What these warn of, the sink says as well, with what it does about it.
_REPEATING = ("elastic_transport",)
# What mode logs of a service that crashes: whoever made it crash has said why.
_CRASHED = "Crashed reason="
# At DEBUG this one writes every request down, logins with their passwords and tokens among them.
_TELLING = "aiokafka.conn"
SAID_AGAIN = 15.0  # seconds until the same line of aiokafka is written again
MOST_SAID = 1_000  # lines that are remembered
# Keys under which nothing is ever printed, whoever logs it.
_SECRET = ("password", "token", "secret", "api_key", "authorization")


class Repeated(logging.Filter):
    """Lets each line of a library through once in SAID_AGAIN, and says then how often it was left out.

    While a broker is away aiokafka writes the same ones hundreds of times a second.
    """

    def __init__(self, library: str) -> None:
        super().__init__(library)
        self._said: dict[tuple[str, ...], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether it is to be written."""
        if not super().filter(record):
            return True  # another library's
        line = record.name, record.getMessage(), repr(record.exc_info and record.exc_info[1])
        at, left_out = self._said.get(line, (-math.inf, 0))
        if 0 <= record.created - at < SAID_AGAIN:
            self._said[line] = at, left_out + 1
            return False
        if len(self._said) >= MOST_SAID:
            del self._said[next(iter(self._said))]
        self._said[line] = record.created, 0
        if left_out:
            record.msg, record.args = f"{line[1]} ({left_out} times more since it was said last)", ()
        return True


class JsonLines(logging.Formatter):
    """One record as one line: time, level, logger, message, the fields of `extra=`, exception.

    Of an error of ours, which says what to do, the text is enough: it has no traceback.

    Values that JSON does not know are written as `str` says. Fields whose name tells of a secret are blotted out; a
    field that would hide one of the fixed ones gets an underscore behind its name.
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        moment = datetime.datetime.fromtimestamp(record.created, datetime.UTC)
        line: dict[str, Any] = {
            "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        for key, value in vars(record).items():
            if key not in _STANDARD:
                line[f"{key}_" if key in (*line, "exception") else key] = _cleared(key, value)
        if record.exc_info and (error := record.exc_info[1]) is not None:
            if isinstance(error, TailraceError):
                line.setdefault("error", str(error))
            else:
                line["exception"] = self.formatException(record.exc_info)
        try:
            return orjson.dumps(line, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
        except TypeError:  # a lone surrogate, or an integer of more than 64 bits
            return json.dumps(line, default=str, skipkeys=True)


def configure(level: str, stream: TextIO | None = None) -> None:
    """Send everything that is logged to `stream` (default: standard error) as JSON lines, from `level` on.

    Libraries that narrate are heard from WARNING on, or from ERROR on, unless the level is DEBUG.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines())
    handler.addFilter(lambda record: _CRASHED not in str(record.msg))
    if level != "DEBUG":
        handler.addFilter(Repeated("aiokafka"))
    root = logging.getLogger()
    for old in root.handlers[:]:
        root.removeHandler(old)
    root.addHandler(handler)
    root.setLevel(level)
    logging.captureWarnings(True)
    for name in (*_CHATTY, *_REPEATING):
        logger, least = logging.getLogger(name), logging.ERROR if name in _REPEATING else logging.WARNING
        logger.setLevel(logging.NOTSET if level == "DEBUG" else max(least, logging.getLevelName(level)))
        logger.handlers.clear()
        logger.propagate = True
    logging.getLogger(_TELLING).setLevel(logging.INFO if level == "DEBUG" else logging.NOTSET)


def _cleared(key: str, value: Any) -> Any:
    if any(word in key.lower() for word in _SECRET):
        return REDACTED
    if isinstance(value, dict):
        return {inner: _cleared(str(inner), below) for inner, below in value.items()}
    return value
