"""The metadata of ingest's offsets: what the next owner of a raw partition has to know, as text.

`MARK/KNOWN/N/PLACE/OWN`; each may be empty. What older workers wrote lacks the last parts, what others wrote says
nothing.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RawOffset:
    """`mark` is in ms, None before there was one; `known` says how many partitions the raw topic had when the group
    met it, 0 for not known; `partitions` is N, None for not known. From offset `place` on, in partition 0 of the topic
    that is fed, are `own` marks of the raw partition if nothing was committed later: of the same transaction, or none.

    >>> RawOffset(1700, 4, 16, 93).pack(), RawOffset.unpack("1700/4")
    ('1700/4/16/93/1', RawOffset(mark=1700, known=4, partitions=None, place=None, own=1))
    """

    mark: int | None
    known: int
    partitions: int | None
    place: int | None = None
    own: int = 1

    def pack(self) -> str:
        """The metadata; `unpack` is its inverse."""
        parts = (self.mark, self.known, self.partitions, self.place, self.own)
        return "/".join("" if number is None else str(number) for number in parts)

    @classmethod
    def unpack(cls, metadata: str | None) -> RawOffset:
        """Of any metadata: an offset that somebody else has set says nothing."""
        numbers = [_number(part) for part in (metadata or "").split("/")]
        mark, known, partitions, place, own, *_ = [*numbers, None, None, None, None]
        return cls(mark, known or 0, partitions, place, 1 if own is None else own)


def _number(text: str) -> int | None:
    return int(text) if text.isdecimal() else None
