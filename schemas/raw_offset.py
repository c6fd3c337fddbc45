"""The metadata of ingest's offsets: what the next owner of a raw partition has to know, as text.

`MARK/KNOWN/N`; each may be empty. What older workers wrote lacks the last part, what others wrote says nothing.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RawOffset:
    """`mark` is in ms, None before there was one; `known` says how many partitions the raw topic had when the group
    met it, 0 for not known; `partitions` is N, None for not known.

    >>> RawOffset(1700, 4, 16).pack(), RawOffset.unpack("1700/4")
    ('1700/4/16', RawOffset(mark=1700, known=4, partitions=None))
    """

    mark: int | None
    known: int
    partitions: int | None

    def pack(self) -> str:
        """The metadata; `unpack` is its inverse."""
        mark, partitions = ("" if number is None else str(number) for number in (self.mark, self.partitions))
        return f"{mark}/{self.known}/{partitions}"

    @classmethod
    def unpack(cls, metadata: str | None) -> RawOffset:
        """Of any metadata: an offset that somebody else has set says nothing."""
        mark, known, partitions, *_ = *(_number(part) for part in (metadata or "").split("/")), None, None, None
        return cls(mark, known or 0, partitions)


def _number(text: str) -> int | None:
    return int(text) if text.isdecimal() else None
