"""Severity: OTLP's numbers 1 to 24 and the words and scales that loggers use for them.

Source: OpenTelemetry, Logs Data Model, "Severity Fields" and Appendix B (syslog, Log4j, Zap, Windows, …).
"""

from __future__ import annotations

import re

UNSPECIFIED = 0
TRACE, DEBUG, INFO, WARN, ERROR, FATAL = 1, 5, 9, 13, 17, 21
HIGHEST = 24
_SHORT = ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")

#: Upper-case words to numbers: OTLP's own short names first (TRACE, TRACE2, … FATAL4), then what loggers say.
NUMBERS: dict[str, int] = {
    f"{name}{step or ''}": 1 + 4 * index + max(step - 1, 0)
    for index, name in enumerate(_SHORT)
    for step in (0, 2, 3, 4)
} | {
    "TRC": TRACE, "TRCE": TRACE, "TRAC": TRACE, "FINEST": TRACE, "VERBOSE": TRACE, "VRB": TRACE, "SILLY": TRACE,
    "FINER": TRACE + 1,
    "DBG": DEBUG, "DBUG": DEBUG, "DEBG": DEBUG, "DEBU": DEBUG, "DEBUG1": DEBUG, "FINE": DEBUG, "D": DEBUG,
    "CONFIG": DEBUG + 2, "DEBUG5": DEBUG,
    "INF": INFO, "INFORMATION": INFO, "INFORMATIONAL": INFO, "I": INFO, "DEFAULT": INFO, "OK": INFO, "HTTP": INFO,
    "LOG": INFO,
    "NOTICE": INFO + 1, "NOTI": INFO + 1,
    "WRN": WARN, "WARNING": WARN, "W": WARN,
    "ERR": ERROR, "ERRO": ERROR, "EROR": ERROR, "E": ERROR, "SEVERE": ERROR,
    "CRITICAL": ERROR + 1, "CRIT": ERROR + 1, "DPANIC": ERROR + 1,
    "ALERT": ERROR + 2,
    "PANIC": FATAL, "PANI": FATAL, "EMERGENCY": FATAL, "EMERG": FATAL, "FTL": FATAL, "FATA": FATAL, "F": FATAL,
}  # fmt: skip
# Go's slog writes a level between its own as `ERROR+2`; it has four steps from one to the next, as OTLP has.
_SLOG = re.compile(r"(DEBUG|INFO|WARN|ERROR)([+-]\d{1,9})", re.ASCII)
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")  # of terminals
_SYSLOG = (FATAL, ERROR + 2, ERROR + 1, ERROR, WARN, INFO + 1, INFO, DEBUG)


def severity_number(text: str) -> int:
    """The number of a word, whatever its case; UNSPECIFIED for one that is not known.

    >>> severity_number("Warning"), severity_number("ERROR3"), severity_number("WARN+2"), severity_number("shiny")
    (13, 19, 15, 0)
    """
    word = text.strip().upper()
    number = NUMBERS.get(word)
    if number is not None:
        return number
    level = _SLOG.fullmatch(word)
    return min(max(NUMBERS[level[1]] + int(level[2]), TRACE), HIGHEST) if level else UNSPECIFIED


def uncoloured(text: str) -> str:
    """A text without the colours that loggers give levels for terminals."""
    return _COLOUR.sub("", text) if "\x1b" in text else text


def severity_text(number: int) -> str:
    """The short name of a number; "" when it is not one of 1 to 24.

    >>> severity_text(13), severity_text(14), severity_text(0)
    ('WARN', 'WARN2', '')
    """
    if not 1 <= number <= HIGHEST:
        return ""
    index, step = divmod(number - 1, 4)
    return f"{_SHORT[index]}{step + 1 if step else ''}"


def severity_of_level(level: float) -> int:
    """The number of a numeric `level` field: syslog and GELF count 0 to 7 downwards, pino and bunyan 10 to 60 upwards.

    A level between two of pino's belongs to the one below. UNSPECIFIED for anything else.
    """
    if level in range(8):
        return _SYSLOG[int(level)]
    if 10 <= level < 70:
        return 1 + 4 * (int(level) // 10 - 1)
    return UNSPECIFIED
