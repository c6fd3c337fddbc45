"""A worker's own log: one JSON object per line on standard error, for a collector to pick up."""

from __future__ import annotations

import datetime
import json
import logging
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
# Keys under which nothing is ever printed, whoever logs it.
_SECRET = ("password", "token", "secret", "api_key", "authorization")


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
