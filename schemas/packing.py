"""How every internal record value is packed: msgpack, and zstd around it when that pays."""

from __future__ import annotations

from typing import Any

import msgpack
import zstandard

COMPRESS_FROM = 512  # bytes; below it zstd's frame costs more than it saves (a mark alone is about 90 bytes)
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"  # no msgpack map starts with it
MAX_UNPACKED = 256 << 20  # bytes, far above any record; foreign bytes can claim to unpack to 2**64
_packer = msgpack.Packer(autoreset=False)  # one memory for every record, large ones included: that of each would be new
_compressor = zstandard.ZstdCompressor(level=1)
_decompressor = zstandard.ZstdDecompressor()


def pack(value: Any) -> bytes:
    """Msgpack, compressed from COMPRESS_FROM bytes on."""
    try:
        _packer.pack(value)
        with _packer.getbuffer() as packed:
            return compressed(packed)
    finally:
        _packer.reset()


def compressed(packed: bytes | memoryview) -> bytes:
    """The record value of what is packed already."""
    return _compressor.compress(packed) if len(packed) >= COMPRESS_FROM else bytes(packed)


def unpack(value: bytes) -> Any:
    """The inverse of `pack`. Raises ValueError on anything else."""
    try:
        return msgpack.unpackb(unpacked(value), strict_map_key=False)
    except msgpack.UnpackException as error:
        raise ValueError(str(error)) from error


def unpacked(value: bytes) -> bytes:
    """The msgpack of a record value. Raises ValueError if it does not decompress."""
    if not value.startswith(ZSTD_MAGIC):
        return value
    try:
        if zstandard.frame_content_size(value) > MAX_UNPACKED:
            raise ValueError(f"claims to unpack to more than {MAX_UNPACKED} bytes")
        return _decompressor.decompress(value)
    except zstandard.ZstdError as error:
        raise ValueError(str(error)) from error
