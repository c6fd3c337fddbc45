"""`tailrace demo`: a shop's traffic, every role, and local destinations in one process, checked against the truth."""

from pipeline.demo.command import command

__all__ = ["command"]
