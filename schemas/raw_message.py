"""What a raw record may hold before anything in it is decoded."""

from __future__ import annotations

from typing import Any

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


def encoding_of(value: Any) -> str:
    """What a dead letter says of the encoding of a whole message: nothing, unless it is no message."""
    return value.codec + BATCH if isinstance(value, UnreadBatch) else ""
