"""Names that came in with spans, for a terminal."""

from __future__ import annotations

from rich.markup import escape


def printable(text: str) -> str:
    r"""What came in may hold control characters, which a terminal would obey.

    >>> print(printable("GET /\x1b[2J"))
    GET /\x1b[2J
    """
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def cell(text: str) -> str:
    """The same where rich reads markup, as in its tables."""
    return escape(printable(text))
