"""Fixtures for the tests of `training.models`: narrow checkpoints of each family, and no network."""

import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from training_support.random_checkpoints import write_checkpoint

from training.models import Parts, load


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """``checkpoint("sdxl", v_prediction=True)``: the file's path; its configs are in ``<path>.config``."""
    folder, made = tmp_path_factory.mktemp("checkpoints"), {}

    def write(family: str, **more) -> Path:
        key = (family, *sorted(more.items()))
        if key not in made:
            made[key] = write_checkpoint(folder / f"{family}_{len(made)}.safetensors", family, **more)
        return made[key]

    return write


@pytest.fixture(scope="session")
def loaded(checkpoint) -> Callable[[str], tuple[Path, Parts]]:
    """Each family's checkpoint with its parts, in the file's number format."""
    made = {}

    def get(family):
        if family not in made:
            path = checkpoint(family)
            made[family] = path, load(path, family, config=f"{path}.config", dtype=None, vae_dtype=None)
        return made[family]

    return get


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Whatever reaches for the network fails."""

    def refuse(*_, **__):
        raise OSError(101, "Network is unreachable")

    for function in ("getaddrinfo", "create_connection"):
        monkeypatch.setattr(socket, function, refuse)
    for method in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, method, refuse)
