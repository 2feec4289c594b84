"""Several processes of one command, as `accelerate launch` starts them."""

from __future__ import annotations

import socket
from collections.abc import Sequence
from pathlib import Path

from .commands import Commands, Ended


def variables(count: int) -> list[dict[str, str]]:
    """What `accelerate launch` sets for each of so many processes on the CPU; nothing for one."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true"}
    shared |= {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    return [{"RANK": str(rank), "LOCAL_RANK": str(rank), **shared} if count > 1 else {} for rank in range(count)]


def launch(
    commands: Commands, count: int, *words, cwd: Path, faults: Sequence[dict] = (), module: str = "distill"
) -> list[Ended]:
    """As many processes of one command, ended."""
    started = [
        commands.start(*words, cwd=cwd, faults=faults, module=module, variables=of_rank) for of_rank in variables(count)
    ]
    return [process.wait() for process in started]
