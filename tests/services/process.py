"""A server or a worker as a child process: its ports, its data folder, its signals, and its end with the tests'."""

from __future__ import annotations

import atexit
import contextlib
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, ClassVar, Self

from tests.repository import ROOT, python_path
from tests.services.waiting import wait_for

HOST = "127.0.0.1"
START_SECONDS = 90.0
STOP_SECONDS = 30.0
LOG_TAIL_LINES = 40
PROBE_SECONDS = 5.0
REMOVED_SECONDS = 10.0  # what was killed may still write for a moment

# The kernel hands out ephemeral ports from 32768 up. A server's port must lie below: while the server is down for a
# restart, a client that keeps reconnecting could be given that very port as its own, connect to itself and keep it.
PORTS = range(15000, 32000)

# Kills the child when the tests die by SIGKILL, where no atexit runs. Set in the child before exec rather than in a
# preexec_fn, which is unsafe (and from Python 3.12 warned about) in a process with threads. 1 = PR_SET_PDEATHSIG.
DIE_WITH_PARENT = (
    "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 9); "
    "os.getppid() == int(sys.argv[1]) or sys.exit('the tests are gone'); "
    "sys.argv[2] and os.sched_setaffinity(0, map(int, sys.argv[2].split(','))); os.execvp(sys.argv[3], sys.argv[3:])"
)

# "Parent" means the thread that forked: a server started in a short-lived thread would die with that thread.
_SPAWNER = ThreadPoolExecutor(max_workers=1, thread_name_prefix="tests-services")

_reserved: set[int] = set()
_open: set[Server] = set()


class ServerFailed(RuntimeError):
    """A server ended or did not get ready; the message ends with the tail of its log."""


def free_port() -> int:
    """A port of 127.0.0.1 on which nothing listens and which this process gives out only once."""
    while True:
        port = random.choice(PORTS)
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
        if port not in _reserved:
            _reserved.add(port)
            return port


@contextlib.contextmanager
def dead_addresses(count: int) -> Iterator[list[str]]:
    """Addresses as of hosts that are powered off: what is sent there is dropped, since the queue to accept is full."""
    with contextlib.ExitStack() as sockets:
        addresses = []
        for _ in range(count):
            listening = sockets.enter_context(socket.socket())
            listening.bind((HOST, 0))
            listening.listen(0)
            for _ in range(2):  # Linux takes one more than it was told
                waiting = sockets.enter_context(socket.socket())
                waiting.setblocking(False)
                waiting.connect_ex(listening.getsockname())
            addresses.append(f"{HOST}:{listening.getsockname()[1]}")
        yield addresses


def answers(url: str) -> bool:
    """Whether a GET of `url` gives a 2xx."""
    try:
        with urllib.request.urlopen(url, timeout=PROBE_SECONDS):
            return True
    except (urllib.error.URLError, OSError):
        return False


def guarded(command: Sequence[str], cpus: Collection[int] = ()) -> list[str]:
    """A command line of a process that ends with the thread which starts it; on these CPUs, none: on all of it."""
    parent = [str(os.getpid()), ",".join(map(str, cpus))]
    return [sys.executable, "-I", "-S", "-c", DIE_WITH_PARENT, *parent, *command]


def spawn(
    command: Sequence[str],
    environment: Mapping[str, str] | None = None,
    cwd: Path = ROOT,
    output: IO[bytes] | None = None,
    cpus: Collection[int] = (),
) -> subprocess.Popen[bytes]:
    """A process that ends with the tests and runs this checkout, with more `environment`; `output`: None, as here."""

    def started() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            guarded(command, cpus),
            cwd=cwd,
            env={**os.environ, "PYTHONPATH": python_path(), **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=None if output is None else subprocess.STDOUT,
            start_new_session=True,  # its own process group: a Ctrl-C of the tests is not its own
        )

    return _SPAWNER.submit(started).result()


class Server(ABC):
    """One server. Ports and data belong to the object: `stop`, `kill` and `restart` keep them, `close` ends both.

    `cpus` are those that a process started from then on may use; none: those of this process.
    """

    name: ClassVar[str]
    cpus: Collection[int] = ()

    def __init__(self) -> None:
        self.data = Path(tempfile.mkdtemp(prefix=f"tailrace-{self.name}-"))
        self.log = self.data / "server.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._ended = True  # with all that it has started: its process id may be somebody else's by now
        _open.add(self)

    @abstractmethod
    def command(self) -> list[str]:
        """Write what the server needs into `self.data`, and return its command line."""

    @abstractmethod
    def is_ready(self) -> bool:
        """Whether it serves requests now."""

    @property
    def pid(self) -> int:
        """The server's process id; ServerFailed if it was never started."""
        if self._process is None:
            raise ServerFailed(f"{self.name} was not started")
        return self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process exists (a paused one does)."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> Self:
        """Start it and block until it is ready. Raises ServerFailed."""
        if self.is_running:
            raise ServerFailed(f"{self.name} runs already (pid {self.pid})")
        command = self.command()
        with self.log.open("ab") as log:
            self._ended = False
            self._process = spawn(command, {"TMPDIR": str(self.data)}, self.data, log, self.cpus)
        try:
            wait_for(self._is_ready_or_dead, START_SECONDS, f"{self.name} is ready")
        except TimeoutError as error:
            self.kill()
            raise self._failed(str(error)) from None
        return self

    def stop(self) -> None:
        """Ask it to end (SIGTERM) and wait; kill it if it does not within STOP_SECONDS."""
        if self._process is None or not self.is_running:
            return
        self._signal(signal.SIGTERM)
        self._signal(signal.SIGCONT)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
        self._end_group()

    def kill(self) -> None:
        """End it at once (SIGKILL), as a crash would."""
        if self._process is not None and self.is_running:
            self._signal(signal.SIGKILL)
            self._process.wait()
            self._ended = True

    def pause(self) -> None:
        """Freeze it (SIGSTOP): connections stay open, nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a paused server go on (SIGCONT)."""
        self._signal(signal.SIGCONT)

    def restart(self) -> Self:
        """Stop it if it runs, and start it on the same ports and data."""
        self.stop()
        return self.start()

    def close(self) -> None:
        """Stop it and what it has started, and delete its data. Raises TimeoutError if that goes on being written."""
        self.stop()
        self._end_group()
        _open.discard(self)
        wait_for(self._is_removed, REMOVED_SECONDS, f"{self.data} is removed")

    def __enter__(self) -> Self:
        try:
            return self if self.is_running else self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *_: object) -> None:
        self.close()

    def _end_group(self) -> None:
        """What it has started and has left behind."""
        if self._process is not None and not self._ended:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        self._ended = True

    def _is_removed(self) -> bool:
        shutil.rmtree(self.data, ignore_errors=True)
        return not self.data.exists()

    def _is_ready_or_dead(self) -> bool:
        if not self.is_running:
            raise self._failed(f"{self.name} ended while starting")
        return self.is_ready()

    def _signal(self, number: signal.Signals) -> None:
        if self.is_running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)

    def _failed(self, why: str) -> ServerFailed:
        tail = self.log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
        return ServerFailed("\n".join([why, *tail]))


@atexit.register
def _close_all() -> None:
    for server in list(_open):
        server.kill()
        with contextlib.suppress(TimeoutError):
            server.close()
