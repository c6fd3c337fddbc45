"""Messages with bytes that are wrong."""

from __future__ import annotations

from random import Random


def damaged(random: Random, data: bytes) -> bytes:
    for _ in range(random.randint(1, 3)):
        at = random.randrange(len(data) + 1)
        way = random.randrange(5)
        if way == 0 and at < len(data):
            data = data[:at] + bytes((data[at] ^ 1 << random.randrange(8),)) + data[at + 1 :]
        elif way == 1:
            data = data[:at] + data[at + random.randint(1, 3) :]
        elif way == 2:
            data = (
                data[:at] + random.choice([b"\x00", b"\xff", b"\x9b\x06", b"\x80" * 9, random.randbytes(2)]) + data[at:]
            )
        elif way == 3:
            data = data[:at] + data[max(0, at - random.randint(1, 20)) :]
        else:
            data = data[:at] if random.random() < 0.3 else data
    return data
