"""CPU and memory of processes from /proc."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from bench.measure import Meter, cpu_seconds, family, machine, native_modules, peak_rss
from tests.services import Server, wait_for

# Burn CPU (in a child if asked to), hold 64 MiB, then say so and wait for the end of standard input.
CHILD = """
import subprocess, sys, time
if sys.argv[1:]:
    child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    print(child.stdout.read(1).decode(), flush=True)
else:
    held = b"x" * (64 << 20)
    while time.process_time() < 0.5:
        pass
    print("r", flush=True)
sys.stdin.read()
"""


@contextmanager
def busy(*arguments: str) -> Iterator[int]:
    command = [sys.executable, "-c", CHILD, *arguments]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.read(1) == b"r"
        yield process.pid
        process.communicate()


def test_cpu_and_memory_of_a_process() -> None:
    with busy() as pid:
        assert 0.4 < cpu_seconds(pid) < 5
        assert 64 << 20 < peak_rss(pid) < 256 << 20


def test_children_count() -> None:
    source = CHILD.replace("sys.stdin.read()", "time.sleep(60)")
    with busy(source) as pid:
        assert len(family(pid)) == 2
        assert cpu_seconds(pid) > 0.4
        assert peak_rss(pid) > 64 << 20
        for child in family(pid)[1:]:
            os.kill(child, 9)


class Idle(Server):
    """A process that does nothing."""

    name = "idle"

    def command(self) -> list[str]:
        return ["sleep", "600"]

    def is_ready(self) -> bool:
        return True


def test_a_pinned_server_has_its_core_from_the_start() -> None:
    core = max(os.sched_getaffinity(0))
    server = Idle()
    server.cpus = {core}
    with server:
        wait_for(lambda: os.sched_getaffinity(server.pid) == {core}, 10, "it is pinned")


def test_native_modules_are_those_of_the_project() -> None:
    with subprocess.Popen([sys.executable, "-c", "import orjson, sys; print(flush=True); sys.stdin.read()"],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:  # fmt: skip
        assert process.stdout is not None
        process.stdout.readline()
        assert native_modules(process.pid) == []
        process.communicate()


def test_a_process_that_is_gone() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
        with pytest.raises(ProcessLookupError):
            cpu_seconds(process.pid)


def test_a_meter_counts_from_its_beginning_and_subtracts_what_is_idle() -> None:
    own = {"own": os.getpid()}
    plain, less = Meter(own), Meter(own, {"own": 1000.0})
    until = time.process_time() + 0.3
    wait_for(lambda: _burn() > until, 60, "CPU is used")
    elapsed, used = plain.read()
    assert 0.2 < used["own"] <= elapsed * os.cpu_count() + 0.1  # type: ignore[operator]
    assert less.read()[1]["own"] < -100 * elapsed


def test_a_meter_counts_a_child_with_a_name_of_its_own_once() -> None:
    with busy("print('r', flush=True)\nwhile True: pass") as pid:
        (child,) = family(pid)[1:]
        try:
            meter = Meter({"parent": pid, "child": child})
            wait_for(lambda: meter.read_one("child") > 0.3, 60, "CPU is used")
            assert meter.read_one("parent") < 0.1
        finally:
            os.kill(child, 9)


def _burn() -> float:
    sum(range(1_000_000))
    return time.process_time()


def test_the_machine_is_described_without_its_name() -> None:
    found = machine()
    assert set(found) == {"cpu", "cores", "memory_gib", "kernel", "python", "load_before", "commit", "date"}
    assert found["cores"] >= 1
    assert os.uname().nodename not in str(found)
