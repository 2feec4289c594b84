"""Fixtures for tests against a real ComfyUI; without one everything in this folder skips with a sentence."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from host_support import tiny_checkpoints
from host_support.client import Client
from host_support.host import Host, HostNotFoundError, find_host
from host_support.server import make_base_directory, start_server, stop_server
from told import tell


@pytest.fixture(scope="session", autouse=True)
def comfyui() -> Host:
    """The host's folder and interpreter, and `run_driver` to run a script under it; starts nothing."""
    try:
        host = find_host()
    except HostNotFoundError as missing:
        tell(f"tests/host: SKIPPED, {missing}")
        pytest.skip(str(missing))
    tell(f"tests/host: ran against ComfyUI {host.version} in {host.root}")
    return host


@pytest.fixture(scope="session")
def base_directory(comfyui: Host, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `--base-directory` of the tests' own, with the pack and the test nodes in it."""
    return make_base_directory(tmp_path_factory.mktemp("comfyui"))


@pytest.fixture(scope="session")
def checkpoints(base_directory: Path) -> Iterator[Path]:
    """The folder with the tiny checkpoints, one for each of `tiny_checkpoints.FAMILIES`."""
    folder = base_directory / "models" / "checkpoints"
    for name in tiny_checkpoints.FAMILIES:
        tiny_checkpoints.write(name, folder)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)  # pytest keeps the rest of the folder: the server's log


@pytest.fixture(scope="session")
def server(comfyui: Host, base_directory: Path, checkpoints: Path) -> Iterator[Client]:
    """One running ComfyUI server for the whole session."""
    client, process = start_server(comfyui, base_directory)
    yield client
    stop_server(process)
