"""What a window reads: its *feeds*, each of them one partition of a topic.

A window has the partition of its own number of each topic, and such a feed goes by the topic's name. A window that
reads all partitions of raw topics (`kafka.partitions: 1` with `regroup: never`) has more of them, TOPIC/NUMBER: no
topic has a slash in its name.
"""

from __future__ import annotations


def feed_of(topic: str, partition: int, own: int) -> str:
    """The name of a feed of the window of partition `own`."""
    return topic if partition == own else f"{topic}/{partition}"


def topic_of(feed: str) -> str:
    """Its topic."""
    return feed.partition("/")[0]


def place_of(feed: str, own: int) -> tuple[str, int]:
    """Its topic and partition, in the window of partition `own`."""
    topic, _, number = feed.partition("/")
    return topic, int(number) if number else own
