"""What a process costs, from /proc; what it was measured on; where the figures are kept.

CPU is user + system time of a process and everything it started, ended children included. Peak RSS is the kernel's
own high-water mark (VmHWM), which no sampling can miss. Both end with the process: read them before stopping it.
"""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from schemas.otlp_scan import __file__ as hot

RESULTS = Path(__file__).resolve().parent / "results"
PAGE_WIDTH = 120
COMPILED = "otlp_scan"  # a hot module that every role loads
NATIVE = {"schemas", "processors", "uvloop"}  # folders of what a worker may run as native code
TICKS = os.sysconf("SC_CLK_TCK")
# Fields of /proc/PID/stat counted from the one behind the command's name (proc(5) numbers that one 3).
MINFLT, UTIME, STIME, _CUTIME, _CSTIME = (field - 3 for field in (10, 14, 15, 16, 17))


def family(pid: int, apart: Collection[int] = ()) -> list[int]:
    """A process and its living descendants, without those `apart` and theirs."""
    found, left = [], [pid]
    while left:
        parent = left.pop()
        found.append(parent)
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                left += (child for child in map(int, task.read_text().split()) if child not in apart)
            except OSError:
                continue  # the thread has ended
    return found


def cpu_seconds(pid: int, apart: Collection[int] = ()) -> float:
    """CPU seconds of a process's family so far, see `family`. Raises ProcessLookupError when it is gone."""
    try:
        total = _ticks(pid)
    except (FileNotFoundError, ProcessLookupError):
        raise ProcessLookupError(f"process {pid} is gone") from None
    for child in family(pid, apart)[1:]:
        try:
            total += _ticks(child)
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended: its parent's fields have it once it was waited for
    return total / TICKS


def _ticks(pid: int) -> int:
    return sum(stat(Path(f"/proc/{pid}"), UTIME, STIME, _CUTIME, _CSTIME))


def stat(folder: Path, *fields: int) -> list[int]:
    """These fields of a process or thread, by its folder in /proc."""
    found = (folder / "stat").read_text().rsplit(")", 1)[1].split()
    return [int(found[field]) for field in fields]


def peak_rss(pid: int) -> int:
    """The largest resident size so far in bytes, the peaks of living children added."""
    total = 0
    for member in family(pid):
        try:
            lines = Path(f"/proc/{member}/status").read_text().splitlines()
        except (FileNotFoundError, ProcessLookupError):
            continue
        total += sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    return total


def native_modules(pid: int) -> list[str]:
    """Which hot modules a worker runs as native code, and whether it runs uvloop: from its memory map, not from what
    it says."""
    lines = (line.split(maxsplit=5) for line in Path(f"/proc/{pid}/maps").read_text().splitlines())
    files = {Path(line[5]) for line in lines if len(line) == 6 and line[5].endswith(EXTENSION_SUFFIXES[0])}
    return sorted(file.name.split(".")[0] for file in files if NATIVE & set(file.parts))


class Meter:
    """CPU of named processes between two moments, each with its children, but for those that have a name themselves.

    `idle` is CPU seconds per second that a process spends whatever is asked of it; it is subtracted,
    and a small negative rest is left to be seen: it says how noisy the figures are.
    """

    def __init__(self, pids: Mapping[str, int], idle: Mapping[str, float] | None = None) -> None:
        self._pids, self._idle = dict(pids), dict(idle or {})
        self.began = time.monotonic()
        self._before = {name: self._seconds(name) for name in self._pids}

    def _seconds(self, name: str) -> float:
        return cpu_seconds(self._pids[name], self._pids.values())

    def read_one(self, name: str) -> float:
        """CPU seconds of one process since the beginning."""
        elapsed = time.monotonic() - self.began
        return self._seconds(name) - self._before[name] - self._idle.get(name, 0.0) * elapsed

    def read(self) -> tuple[float, dict[str, float]]:
        """Seconds since it was made, and CPU seconds of each process in them."""
        elapsed = time.monotonic() - self.began
        used = {name: self.read_one(name) for name in self._pids}
        return elapsed, used

    def rates(self) -> tuple[float, dict[str, float]]:
        """Like `read`, in CPU seconds per second."""
        elapsed, used = self.read()
        return elapsed, {name: seconds / elapsed for name, seconds in used.items()}


def machine() -> dict[str, Any]:
    """What the figures were measured on, how busy it was before, and with which code."""
    info = Path("/proc/cpuinfo").read_text().splitlines()
    model = next((line.split(":", 1)[1].strip() for line in info if line.startswith("model name")), platform.machine())
    memory = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemTotal"))
    return {
        "cpu": model,
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(int(memory.split()[1]) / (1 << 20), 1),
        "kernel": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
        "load_before": round(os.getloadavg()[0], 2),
        "commit": _commit(),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }


def in_process(**options: Any) -> dict[str, Any]:
    """What the figures of a benchmark begin with that runs the hot modules itself: `machine`, and how it ran."""
    return {"machine": machine(), "options": {**options, "compiled": compiled()}}


def compiled() -> bool:
    """Whether the hot modules of this process are native code."""
    return hot.endswith(EXTENSION_SUFFIXES[0])


def _commit() -> str:
    """The checkout's commit, with a plus sign if the code differs from it; "" outside a clone."""
    root = Path(__file__).resolve().parent.parent
    code = ["pipeline", "processors", "schemas", "sinks", "bench/*.py"]
    try:
        name = subprocess.check_output(["git", "rev-parse", "--short=10", "HEAD"], cwd=root, text=True).strip()
        changed = subprocess.check_output(["git", "status", "--porcelain", "--", *code], cwd=root, text=True)
    except (OSError, subprocess.CalledProcessError):
        return ""
    return f"{name}{'+' if changed.strip() else ''}"


def save(name: str, figures: Mapping[str, Any]) -> Path:
    """Write bench/results/NAME.json, whole or not at all; `python -m bench.report` makes tables of it."""
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"{name}.json"
    fresh = file.with_suffix(".json.new")
    fresh.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    fresh.replace(file)
    return file


def keep(out: Console, name: str, figures: Mapping[str, Any], native: Iterable[Collection[str]] = ()) -> None:
    """`save`, and say where; and if a worker, by its `native_modules`, or this process ran the hot modules as plain
    Python."""
    if not all(COMPILED in names for names in native):
        out.print("NOT COMPILED: the workers ran the hot modules as plain Python; `make bench` compiles them")
    if not figures.get("options", {}).get("compiled", True):
        out.print(f"NOT COMPILED: `make bench BENCH=micro.{name}` compiles the hot modules")
    file = save(name, figures)
    out.print(f"saved as bench/results/{file.name}; `python -m bench.report` writes the tables of the documents")


def console() -> Console:
    """Where a benchmark prints: as wide as the terminal, or wide enough for its tables in a file."""
    found = Console(highlight=False, markup=False, soft_wrap=True)
    return found if found.is_terminal else Console(highlight=False, markup=False, soft_wrap=True, width=PAGE_WIDTH)


def middle(values: Sequence[float], form: str) -> str:
    """The median, with the extremes if there is more than one value."""
    shown = format(median(values), form)
    return shown if len(values) == 1 else f"{shown} ({min(values):{form}} to {max(values):{form}})"


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """For the terminal; all columns but the first are right-aligned."""
    shown = Table()
    for number, heading in enumerate(columns):
        shown.add_column(heading, justify="right" if number else "left")
    for row in rows:
        shown.add_row(*row)
    return shown


def load_results(name: str) -> dict[str, Any] | None:
    """What `save` wrote; None if there is nothing."""
    file = RESULTS / f"{name}.json"
    if not file.exists():
        return None
    figures: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return figures
