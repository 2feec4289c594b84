"""Starting a ComfyUI server as a process of its own with this pack in it, and ending it for certain."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path

from .client import Client, tail
from .host import Host, clean_environment

REPOSITORY = Path(__file__).resolve().parents[2]
TEST_NODES = Path(__file__).resolve().parent / "nodes_for_tests"
FAILURES = ("IMPORT FAILED", "Error while calling comfy_entrypoint")
NOT_COPIED = shutil.ignore_patterns(".git", ".venv", "__pycache__", "*.egg-info", ".*_cache", "build", "dist")


class ServerError(Exception):
    """The server did not start, or started without this pack; the message ends with the log's tail."""


def make_base_directory(base: Path, pack: Path = REPOSITORY) -> Path:
    """Lay out what `--base-directory` expects, with the pack and the test nodes installed."""
    for folder in ("models/checkpoints", "models/loras", "custom_nodes", "input", "output", "temp", "user"):
        (base / folder).mkdir(parents=True, exist_ok=True)
    _install(pack, base / "custom_nodes" / "tcd-toolkit")
    _install(TEST_NODES, base / "custom_nodes" / "tcd_test_nodes")
    return base


def _install(source: Path, target: Path) -> None:
    try:
        target.symlink_to(source, target_is_directory=True)
    except OSError:  # Windows without the right to make links
        shutil.copytree(source, target, ignore=NOT_COPIED)


def start_server(
    host: Host, base: Path, timeout: float = 90.0, flags: tuple[str, ...] = ()
) -> tuple[Client, subprocess.Popen]:
    """Start `main.py` on the CPU over `base`, wait until it answers, and check that the packs came up."""
    port = _free_port()
    log = base / "server.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*_command(host, base, port), *flags],
            cwd=base,
            env=clean_environment(TCD_TEST_EXIT_WITH_PARENT="1"),
            stdin=subprocess.PIPE,  # the test nodes end the server when this closes, however the tests end
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=os.name != "nt",
        )
    atexit.register(stop_server, process)
    client = Client(f"http://127.0.0.1:{port}", base, log, process)
    try:
        _wait_until_ready(client, process, timeout)
        _check_packs(client)
    except BaseException:
        stop_server(process)
        raise
    return client, process


def stop_server(process: subprocess.Popen) -> None:
    """End the server and whatever it started; quiet when it has already ended."""
    atexit.unregister(stop_server)
    for force in (False, True):
        if process.poll() is None:
            _signal(process, force)
            with suppress(subprocess.TimeoutExpired):
                process.wait(5)
    if process.stdin is not None:
        with suppress(OSError):
            process.stdin.close()


def _signal(process: subprocess.Popen, force: bool) -> None:
    with suppress(ProcessLookupError):
        if os.name == "nt":
            process.kill() if force else process.terminate()
        else:
            os.killpg(process.pid, signal.SIGKILL if force else signal.SIGTERM)


def _command(host: Host, base: Path, port: int) -> list[str]:
    flags = "--cpu --listen 127.0.0.1 --disable-api-nodes --disable-auto-launch --preview-method latent2rgb"
    database = ["--database-url", "sqlite:///:memory:"]
    places = ["--port", str(port), "--base-directory", str(base)]
    return [str(host.python), str(host.root / "main.py"), *flags.split(), *database, *places]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _wait_until_ready(client: Client, process: subprocess.Popen, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise ServerError(f"ComfyUI ended with {process.returncode} while starting:\n{tail(client.log())}")
        if client.is_up():
            return
        time.sleep(0.1)
    raise ServerError(f"ComfyUI did not answer within {timeout} s:\n{tail(client.log())}")


def _check_packs(client: Client) -> None:
    log = client.log()
    if any(failure in log for failure in FAILURES):
        raise ServerError(f"a pack could not be loaded:\n{tail(log)}")
