"""Which traces were seen on two partitions."""

from __future__ import annotations

from array import array

ONE_IN = 1_024  # trace ids that are looked at
MOST = 1 << 16  # traces remembered: 64 million at one in 1,024, hours of traffic
_GOLDEN = 0x9E3779B97F4A7C15
_U64 = (1 << 64) - 1


def is_sampled(key: int) -> bool:
    """Whether a trace key is one of those looked at, whatever its producers put into its bits."""
    return (key * _GOLDEN & _U64) < (1 << 64) // ONE_IN


class Sightings:
    """The partition of every sampled trace key, the newest `most` of them."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._partitions: dict[int, int] = {}

    def see(self, partition: int, keys: array[int]) -> list[tuple[int, int]]:
        """These keys are on this partition: (key, the other partition) of those that were on another one, once each."""
        found = []
        for key in keys:
            if is_sampled(key):
                other = self._partitions.setdefault(key, partition)
                if other not in (partition, -1):
                    found.append((key, other))
                    self._partitions[key] = -1  # told
        while len(self._partitions) > self._most:
            del self._partitions[next(iter(self._partitions))]
        return found
