"""One process at a time in a run's folder."""

from __future__ import annotations

import os
import platform
import random
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from training.disk import OutputError, reason

_LOCK = re.compile(r"running-(?P<host>.+)-(?P<pid>\d+)-(?P<began>\d+)-[0-9a-f]{8}\.lock")


@contextmanager
def lock(folder: Path) -> Iterator[None]:
    """Hold a run's folder, so that no second process runs or resumes it at the same time.

    Each process makes a file of its own, named after host, process and the process's beginning, and only then looks for
    others: of two that come at once at least one sees the other and steps back. Such a file is deleted when the block
    ends; one left by a process of this machine that no longer lives (SIGKILL, a power cut) is removed by the next.

    Raises:
        OutputError: another process holds the folder, or may hold it (one of another machine): the message says which
            file to delete if it does not; or the folder is not writable.
    """
    pid = os.getpid()
    mine = Path(folder) / f"running-{_host()}-{pid}-{_began(pid)}-{secrets.token_hex(4)}.lock"
    for _ in range(5):
        with _own_file(mine):
            held = _held_by_others(mine)
            if held is None:
                yield
                return
        time.sleep(random.uniform(0.02, 0.1))
    raise OutputError(_in_use(held))


@contextmanager
def _own_file(path: Path) -> Iterator[None]:
    try:
        file = open(path, "x")
    except OSError as error:
        raise OutputError(f"cannot write to {path.parent}: {reason(error)}") from error
    try:
        yield
    finally:
        file.close()
        with suppress(OSError):
            path.unlink()


def _held_by_others(mine: Path) -> Path | None:
    """Another living process's file in the folder of ``mine``; those of dead ones are removed on the way."""
    for path in mine.parent.glob("running-*.lock"):
        match = _LOCK.fullmatch(path.name)
        if path == mine or match is None:
            continue
        if match["host"] != _host() or _holds(path, int(match["pid"]), match["began"]):
            return path
        path.unlink(missing_ok=True)
    return None


def _holds(path: Path, pid: int, began: str) -> bool:
    """Whether the process of this machine that made a lock file still lives."""
    if os.name == "nt":  # there a file that somebody has open cannot be deleted
        try:
            path.unlink(missing_ok=True)
        except PermissionError:
            return True
        return False
    now = _began(pid)
    return now is not None and (now == began or "0" in (now, began))


def _began(pid: int) -> str | None:
    """When a process began, in ticks since boot, "0" if it lives and that is not known; None if it does not live.

    The time tells a process from a later one with its number: after a reboot, in a container that was started again.
    """
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
        return None if state in "ZX" else fields[18]
    except (OSError, ValueError, LookupError):
        pass
    if os.name == "nt":
        return "0"
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except OSError:
        pass
    return "0"


def _host() -> str:
    return re.sub(r"[^\w.]", "_", platform.node() or "unknown")[:64]


def _in_use(held: Path) -> str:
    who = _LOCK.fullmatch(held.name)
    where = "on this machine" if who["host"] == _host() else f"on {who['host']}, as far as can be told from here"
    return (
        f"{held.parent} is in use by process {who['pid']} {where}. Let it finish, or choose another folder with "
        f"--output. If that is no training run (any more), delete {held}"
    )
