"""What a process has used so far, from /proc, and what a measurement was made on. It measures no wall-clock time."""

import datetime as dt
import os
import subprocess
from pathlib import Path
from typing import Any

__all__ = ["available_bytes", "peak_bytes", "processor_seconds", "provenance"]


def peak_bytes(pid: int | str = "self") -> int:
    """A process's largest resident memory, the mapped files' pages in memory included; 0 where there is no /proc.

    Not getrusage's: on Linux that begins with the parent's.
    """
    return _kilobytes(f"/proc/{pid}/status", "VmHWM")


def available_bytes() -> int:
    """Memory of this machine that programs could still get; 0 where there is no /proc."""
    return _kilobytes("/proc/meminfo", "MemAvailable")


def processor_seconds(pid: int) -> float:
    """Processor time of a running process, all its threads; 0 where there is no /proc."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0.0
    # The name, in brackets, may have spaces; user and system time are the 14th and 15th field.
    user, system = text.rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def provenance() -> dict[str, Any]:
    """When, on how many cores and from which commit a result is; `make docs-figures` puts it beside the figures.

    Returns:
        ``day`` (UTC), ``cores``, and ``commit``, "unknown" outside a repository; with "+" if files were changed since.
    """
    folder = Path(__file__).parent

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True)
        return done.stdout.strip()

    try:
        commit = git("rev-parse", "--short=10", "HEAD")
        if git("status", "--porcelain", "--untracked-files=no"):
            commit += "+"
    except (OSError, subprocess.CalledProcessError):
        commit = "unknown"
    return {"day": dt.datetime.now(dt.UTC).date().isoformat(), "cores": os.cpu_count() or 1, "commit": commit}


def _kilobytes(path: str, name: str) -> int:
    try:
        text = Path(path).read_text()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in text.splitlines() if line.startswith(f"{name}:")), 0)
