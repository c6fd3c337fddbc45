"""How aiokafka's clients come to a connection: a broker that is powered off must not hold up those that are there.

aiokafka 0.14 tries the addresses of `bootstrap_servers` one after the other, each for `request_timeout_ms` (40 s) if
nothing answers, and does so for every client anew. Here the one that answered last is asked first and, if it says
nothing for PATIENCE, all the others beside it. No connection, to a broker of the metadata neither, is tried for longer
than CONNECT_LIMIT; one that failed is tried again after a while, by whichever client, or each would do so a hundred
times a second. `begin` puts this into aiokafka: `AIOKafkaClient.bootstrap`, and the `create_conn` that it calls.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import resource
import time
from collections.abc import Iterable, Sequence
from typing import Any

import aiokafka.client
from aiokafka.client import AIOKafkaClient
from aiokafka.conn import AIOKafkaConnection, CloseReason, collect_hosts
from aiokafka.errors import KafkaConnectionError, KafkaError

PATIENCE = 1.0  # seconds until the others are asked too: TLS and SASL take some round trips, between continents too
STEPS = 10  # of PATIENCE
# Seconds, doubled each time, as Kafka's reconnect.backoff.ms and .max.ms; but aiokafka waits for them under the one
# lock of a client, before which connections to other brokers queue up.
RECONNECT_LEAST, RECONNECT_MOST = 0.05, 0.2
CONNECT_LIMIT = 10.0  # seconds for TCP and TLS, as Kafka's socket.connection.setup.timeout.ms
LOGIN = ("security_protocol", "sasl_mechanism", "sasl_plain_username", "sasl_plain_password")
"""What tells clients apart that are not refused together."""
NO_ANSWER = "no answer in time"
"""What stands for the text of a time-out, which has none."""
NO_METADATA = "answered, but gave no metadata"

log = logging.getLogger("aiokafka")  # where it says the same

Address = tuple[str, int]
_Trying = asyncio.Task[AIOKafkaConnection]

_answered: dict[Address, float] = {}  # when each did last
_silent: set[Address] = set()  # of which that was said
_failed: dict[tuple[Any, ...], tuple[int, float]] = {}  # by address and login: how often in a row, and when last
_away: set[frozenset[Address]] = set()
_races: dict[asyncio.Task[Any] | None, _Race] = {}  # by the task that bootstraps
_bootstrap = AIOKafkaClient.bootstrap


def begin() -> None:
    """From now on aiokafka's clients connect as this module says."""
    AIOKafkaClient.bootstrap = bootstrap
    aiokafka.client.create_conn = create_conn


def away(servers: Sequence[str]) -> bool:
    """Whether no address of these answered the last client that began with them."""
    return _addresses(collect_hosts(servers, randomize=False)) in _away


def _addresses(hosts: Iterable[tuple[str, int, Any]]) -> frozenset[Address]:
    return frozenset((host, port) for host, port, _ in hosts)


async def bootstrap(client: AIOKafkaClient) -> None:
    """aiokafka's own, with the addresses side by side."""
    hosts = client.hosts
    task, addresses = asyncio.current_task(), _addresses(hosts)
    _races[task] = _Race([(host, port) for host, port, _ in hosts])
    try:
        await _bootstrap(client)
        _away.discard(addresses)
    except KafkaConnectionError:
        _away.add(addresses)
        raise
    finally:
        del _races[task]


async def create_conn(host: str, port: int, **how: Any) -> AIOKafkaConnection:
    """A connection to this address; to any of the list for a client that bootstraps."""
    race = _races.get(asyncio.current_task())
    return await (_connection(host, port, how) if race is None else race.connection(host, port, how))


class _Connection(AIOKafkaConnection):  # type: ignore[misc]
    """One that is broken says so: where asyncio's transports raise OSError, uvloop's raise RuntimeError.

    aiokafka's tasks do not expect that one: they would end, and whoever waits for metadata would wait for ever.
    """

    def send(self, request: Any, expect_response: bool = True) -> Any:
        """Raises KafkaConnectionError."""
        try:
            return super().send(request, expect_response)
        except (KafkaError, NotImplementedError):  # RuntimeErrors both: of the request, not of the connection
            raise
        except RuntimeError as error:
            self.close(reason=CloseReason.CONNECTION_BROKEN)
            raise KafkaConnectionError(f"Connection at {self.host}:{self.port} broken: {error}") from error


async def _connection(host: str, port: int, how: dict[str, Any]) -> AIOKafkaConnection:
    """`aiokafka.conn.create_conn`, which does not try an address again at once that failed."""
    place = host, port, *map(how.get, LOGIN)
    times, last = _failed.get(place, (0, 0.0))
    if times:
        pause = min(RECONNECT_MOST, RECONNECT_LEAST * 2 ** min(times - 1, 10))
        await asyncio.sleep(last + pause - time.monotonic())
    try:
        connection = await _connected(host, port, how)
    except Exception:
        _failed[place] = times + 1, time.monotonic()
        raise
    _failed.pop(place, None)
    return connection


async def _connected(host: str, port: int, how: dict[str, Any]) -> AIOKafkaConnection:
    """What is not even a connection after CONNECT_LIMIT is given up."""
    connection = _Connection(host, port, **how)
    connecting = asyncio.ensure_future(connection.connect())
    try:
        await asyncio.wait({connecting}, timeout=CONNECT_LIMIT)
        if not connecting.done() and not connection.connected():
            raise TimeoutError(NO_ANSWER)
        await connecting  # versions and login have the limits of requests
    except BaseException as error:
        connection.close()  # whoever is cancelled may have it by now
        if isinstance(error, OSError) and _no_more_files():
            limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
            text = f"too many open files: this process may have {limit}, give it more (`ulimit -n`, LimitNOFILE)"
            raise OSError(errno.EMFILE, text) from error
        raise
    finally:
        connecting.cancel()
    return connection


def _no_more_files() -> bool:
    """Whether that is what is behind an error: of a name that cannot be looked up it says nothing."""
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))
    except OSError as error:
        return error.errno == errno.EMFILE
    return False


async def _completed(left: set[_Trying], patience: float | None) -> tuple[set[_Trying], set[_Trying]]:
    """`asyncio.wait` for the first, in steps: the time for which something blocks the loop counts as one of them."""
    done: set[_Trying] = set()
    for _ in range(STEPS if patience else 1):
        if not done:
            wait = patience and patience / STEPS
            done, left = await asyncio.wait(left, timeout=wait, return_when=asyncio.FIRST_COMPLETED)
    return done, left


class _Race:
    """The addresses of a list for one client: whichever is asked for, the first that answers is given."""

    def __init__(self, addresses: Iterable[Address]) -> None:
        self._left = sorted(dict.fromkeys(addresses), key=lambda address: -_answered.get(address, 0.0))
        self._failed: dict[Address, BaseException] = {}

    async def connection(self, host: str, port: int, how: dict[str, Any]) -> AIOKafkaConnection:
        """The first that there is. Raises what came of this address if there is none left."""
        if not self._failed.keys() >= {*self._left} and (won := await self._first(how)) is not None:
            return won
        if (error := self._failed.get((host, port))) is not None:
            raise error
        # aiokafka names whom it asks for, which was another one then: of those that failed it may have said nothing.
        others = (f"{host}:{port}: {error}" for (host, port), error in self._failed.items())
        raise ConnectionError("; ".join([NO_METADATA, *others]))

    async def _first(self, how: dict[str, Any]) -> AIOKafkaConnection | None:
        trying: dict[_Trying, Address] = {}
        won = None
        try:
            for addresses, patience in ((self._left[:1], PATIENCE), (self._left[1:], None)):
                trying |= {asyncio.create_task(_connection(*address, how)): address for address in addresses}
                if (won := await self._won(trying, patience)) is not None:
                    return won
        finally:
            for task in trying:
                task.cancel()
            for ended in await asyncio.gather(*trying, return_exceptions=True):
                if isinstance(ended, AIOKafkaConnection) and ended is not won:
                    ended.close()
        return None

    async def _won(self, trying: dict[_Trying, Address], patience: float | None) -> AIOKafkaConnection | None:
        """The first connection there is, unless none comes for `patience` seconds, or all fail."""
        left = {task for task, address in trying.items() if address not in self._failed}
        while left:
            done, left = await _completed(left, patience)
            if not done:
                return None
            for task in done:
                address = trying[task]
                if (error := task.exception()) is None:
                    self._left.remove(address)  # should it not know the cluster, the others are asked
                    self._tell(address, next(iter(trying.values())))
                    return task.result()
                self._failed[address] = error
        return None

    def _tell(self, won: Address, first: Address) -> None:
        """Remember who answered, and say once of each that did not that it is passed over."""
        _answered[won] = time.monotonic()
        _silent.discard(won)
        for host, port in {first, *self._failed} - {won} - _silent:
            why = self._failed.get((host, port)) or f"no answer for {PATIENCE:g} s, and {won[0]}:{won[1]} answers"
            log.warning('Unable connect to "%s:%s": %s', host, port, why)
            _silent.add((host, port))
