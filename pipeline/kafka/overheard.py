"""What aiokafka says in its log while a command asks Kafka: why brokers cannot be reached is said there alone."""

from __future__ import annotations

import logging

from schemas.kafka_client import advice
from schemas.kafka_connect import NO_ANSWER


class Overheard(logging.Handler):
    """Takes the place of aiokafka's log, for a command that says on one line what it could not do.

    A failed login or a name that does not resolve is a line of the log; the error says "unable to bootstrap".
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.said: list[str] = []
        self._logger = logging.getLogger("aiokafka")

    def emit(self, record: logging.LogRecord) -> None:
        """Remember a message once."""
        said = record.getMessage()
        arguments = record.args if isinstance(record.args, tuple) else ()
        if any(isinstance(each, TimeoutError) and not str(each) for each in arguments):
            said += NO_ANSWER  # the text of a time-out is empty, as that of a connection that was reset
        if said not in self.said:
            self.said.append(said)

    def after(self, text: str, section: str = "kafka.security") -> str:
        """A text, what was heard behind it, and which key of `section` mends it, where that is known."""
        told = "; ".join([text, *self.said])
        return f"{told}: {mended}" if (mended := advice(told, section)) else told

    def __enter__(self) -> Overheard:
        self._logger.addHandler(self)
        self._propagated, self._logger.propagate = self._logger.propagate, False
        return self

    def __exit__(self, *_: object) -> None:
        self._logger.removeHandler(self)
        self._logger.propagate = self._propagated
