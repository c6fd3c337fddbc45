"""What a raw record may hold before anything in it is decoded."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeGuard, cast

from schemas.errors import Malformed
from schemas.reasons import Reason

BATCH = "_batch"  # after the codec: the encoding of a dead letter that is a whole batch


class UnreadBatch(bytes):
    """The records of a Kafka batch that were not decompressed, or cannot be, in the place of its last value.

    `codec` is Kafka's word for the compression; `reason` and `detail` say what is wrong.
    """

    codec: str
    reason: Reason
    detail: str

    @classmethod
    def of(cls, data: bytes, codec: str, reason: Reason, detail: str) -> UnreadBatch:
        """One with all that is known of it."""
        batch = cls(data)
        batch.codec, batch.reason, batch.detail = codec, reason, detail
        return batch


def checked(value: bytes, most: int) -> bytes:
    """The same message, if it is one of at most `most` bytes. Raises Malformed."""
    if isinstance(value, UnreadBatch):
        raise Malformed(value.reason, value.detail)
    if not value:
        raise Malformed(Reason.EMPTY_MESSAGE)
    if len(value) > most:
        raise Malformed(Reason.MESSAGE_TOO_LARGE, f"{len(value)} bytes, limit {most}")
    return value


def all_fit(values: Sequence[bytes | None], most: int) -> TypeGuard[Sequence[bytes]]:
    """Whether each of several is a message that `checked` returns: a look at all costs less than a call for each."""
    if set(map(type, values)) != {bytes}:
        return False
    lengths = list(map(len, cast("Sequence[bytes]", values)))
    return min(lengths) > 0 and max(lengths) <= most


def encoding_of(value: Any) -> str:
    """What a dead letter says of the encoding of a whole message: nothing, unless it is no message."""
    return value.codec + BATCH if isinstance(value, UnreadBatch) else ""
